package run_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"bake/config"
	"bake/run"
	"bake/step"
)

// Builds a template as bake build does. The options define where the state is kept and who
// gets the events.
func ExampleBuild() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "hello.pkr.hcl")
	err = os.WriteFile(path, []byte(`
source "null" "here" { communicator = "none" }
build {
  sources = ["null.here"]
  provisioner "shell-local" { inline = ["echo Hello from $PACKER_BUILD_NAME"] }
}
`), 0o600)
	if err != nil {
		log.Fatal(err)
	}

	result, err := run.Build(context.Background(), run.Options{
		Template: run.Template{Options: config.Options{Path: path, Cwd: dir, Env: os.Environ()}},
		State:    run.State(filepath.Join(dir, "state")),
		Command:  "example",
		Emit: func(e step.Event) {
			if e.Kind == step.Output {
				fmt.Println(e.Text)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, b := range result.Builds {
		fmt.Println(b.Name, len(result.Left), "resources left")
	}
	// Output:
	// Hello from here
	// null.here 0 resources left
}
