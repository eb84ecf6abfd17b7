package cloud_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"

	"bake/cloud"
	"bake/cloud/image"
	"bake/cloud/machine/sandbox"
)

// A program that serves the cloud, with real machines, until it is interrupted.
func Example() {
	if ran, code := sandbox.Child(os.Args); ran { // machines are processes of this program
		os.Exit(code)
	}
	if err := serve(context.Background(), "/var/lib/example"); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, dir string) (err error) {
	driver, err := sandbox.New(sandbox.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer driver.Close()
	store, err := image.Open(filepath.Join(dir, "images"), driver)
	if err != nil {
		return err
	}
	c, err := cloud.Open(ctx, cloud.Options{Dir: dir, Driver: driver, Images: cloud.Layers(store, image.EnsureOptions{})})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("export AWS_ENDPOINT_URL=http://%s AWS_SHARED_CREDENTIALS_FILE=%s\n", l.Addr(), c.CredentialsFile())
	return c.Serve(l)
}
