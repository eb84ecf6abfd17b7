package localcloud_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"bake/config"
	"bake/run"
	"bake/run/localcloud"
	"bake/step"
)

// A program that bakes a template on the local cloud, as bake build -local does.
func Example() {
	if ran, code := localcloud.Child(os.Args); ran {
		os.Exit(code)
	}
	if err := bake(context.Background(), "/var/lib/example", "web.pkr.hcl"); err != nil {
		log.Fatal(err)
	}
}

func bake(ctx context.Context, dir, template string) (err error) {
	var cloud *localcloud.Cloud
	defer func() {
		if cloud != nil {
			err = errors.Join(err, cloud.Close(ctx))
		}
	}()
	result, err := run.Build(ctx, run.Options{
		Template: run.Template{Options: config.Options{Path: template, Cwd: ".", Env: os.Environ()}},
		State:    run.State(dir + "/state"),
		Cloud: func(ctx context.Context, _ func(step.Event)) (_ *localcloud.Cloud, err error) {
			cloud, err = localcloud.Open(ctx, localcloud.Options{Dir: dir + "/cloud", Getenv: os.Getenv, Launches: true})
			return cloud, err
		},
		Emit: func(e step.Event) { fmt.Println(e.Kind, e.Build, e.Step, e.Text) },
	})
	for _, b := range result.Builds {
		for _, a := range b.Artifacts {
			fmt.Println(b.Name, a.ID)
		}
	}
	return err
}
