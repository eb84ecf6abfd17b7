package images_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/ebs"
	"bake/builder/amazon/images"
	"bake/builder/amazon/internal/amazontest"
	"bake/communicator"
	"bake/component"
	"bake/config/schema"
	"bake/step"
)

// debian is an image of the test's cloud.
func debian(t *testing.T, a *images.Account) images.Image {
	t.Helper()
	found, err := a.List(t.Context(), images.Query{Owners: []string{"136693071363"}, Name: "debian-12-*"})
	if err != nil || len(found) == 0 {
		t.Fatalf("List = %v, %v, want images of Debian 12", found, err)
	}
	return found[len(found)-1]
}

// looker is a builder that launches a machine from an image and examines it.
type looker struct {
	cloud amazon.Cloud
	image string
}

func (l looker) Build(ctx context.Context, s *step.Scope, _ builder.Hooks) (*builder.Artifact, error) {
	a, err := images.Open(ctx, images.Place{Cloud: l.cloud})
	if err != nil {
		return nil, err
	}
	return nil, a.Boot(ctx, s, l.image, images.BootOptions{}, func(ctx context.Context, i images.Image, m builder.Machine) error {
		status, err := m.Run(ctx, communicator.Command{Line: "exit 3"})
		if err == nil && (status.Code != 3 || i.ID != l.image) {
			err = fmt.Errorf("%s: status %d", i.ID, status.Code)
		}
		return err
	})
}

// Failures while a machine launched from an image is examined leave nothing.
func TestFaultsWhileLooking(t *testing.T) {
	t.Parallel()
	image := ""
	maker := func(cloud amazon.Cloud) component.Factory[builder.Builder] {
		return component.Define("boot", ebs.Defaults, func(*ebs.Options, *schema.Source) builder.Builder { return looker{cloud, image} })
	}
	amazontest.Faults(t, maker, `ami_name = "never"`, 0, func(w *amazontest.World) {
		a, err := images.Open(t.Context(), images.Place{Cloud: w.Cloud})
		if err != nil {
			t.Fatal(err)
		}
		id := debian(t, a).ID // the same in all worlds
		if image != "" && image != id {
			t.Errorf("the image is %s and %s", image, id)
		}
		image = id
	})
}

// The image and the options determine the machine that is launched.
func TestBoot(t *testing.T) {
	w := amazontest.NewWorld(t, nil)
	a, err := images.Open(t.Context(), images.Place{Cloud: w.Cloud})
	if err != nil {
		t.Fatal(err)
	}
	image := debian(t, a)
	own, err := copyOf(t, w, a, image)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		ref, want string
		options   images.BootOptions
		fails     string
	}{
		"publisher": {ref: image.ID, want: "t3.micro admin"},
		"ancestor":  {ref: own, want: "t3.micro admin"},
		"asked":     {ref: image.ID, options: images.BootOptions{InstanceType: "t3.small", User: "admin"}, want: "t3.small admin"},
		"no image":  {ref: "ami-00000000000000000", fails: "there is no image ami-00000000000000000"},
	} {
		t.Run(name, func(t *testing.T) {
			b := w.Bake(t)
			var got []string
			err := a.Boot(t.Context(), b.Scope, test.ref, test.options, func(_ context.Context, _ images.Image, m builder.Machine) error {
				w.Mu.Lock()
				defer w.Mu.Unlock()
				for _, c := range w.Calls {
					if c.Action == "RunInstances" {
						got = append(got, c.Params["InstanceType"]+" "+m.Data["User"].Text)
						if c.Params["MetadataOptions.HttpTokens"] != "required" || c.Params["UserData"] != "" {
							t.Errorf("launched with %v", c.Params)
						}
					}
				}
				w.Calls = nil
				return nil
			})
			if test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)) || test.fails == "" && err != nil {
				t.Errorf("error %v", err)
			}
			if strings.Join(got, ",") != test.want {
				t.Errorf("launched %v, want %s", got, test.want)
			}
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	if left := w.Holdings(); len(left) != 2 {
		t.Errorf("there should be the image and its snapshot:\n%s", strings.Join(left, "\n"))
	}
}

// copyOf returns an image of the account that was copied from another one.
func copyOf(t *testing.T, w *amazontest.World, a *images.Account, of images.Image) (string, error) {
	b := w.Bake(t)
	made, err := a.Copy(t.Context(), b.Scope, of.ID, images.CopyOptions{To: []string{amazontest.Region}, Name: "golden"})
	if err := errors.Join(err, b.Scope.Close(t.Context(), context.Background())); err != nil {
		return "", err
	}
	if len(made) != 1 {
		return "", fmt.Errorf("made %v", made)
	}
	return made[0].ID, nil
}
