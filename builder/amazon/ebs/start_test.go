package ebs_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon/ebs"
)

// TestStartGone starts from an image that is deleted before the launch, between any two calls:
// the source image is launched instead, and ResolveSource is called again.
func TestStartGone(t *testing.T) {
	for name, before := range map[string]func(c call) bool{
		"when it is looked at": func(c call) bool { return c.Action == "DescribeImages" && c.Params["ImageId.1"] != "" },
		"when EC2 is asked":    func(c call) bool { return c.Action == "RunInstances" && c.Params["DryRun"] == "true" },
		"when it is launched":  func(c call) bool { return c.Action == "RunInstances" && c.Params["DryRun"] != "true" },
		"never":                func(call) bool { return false },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var kept, source string
			w.Quietly(func() {
				c := w.Client(region)
				found, err := c.DescribeImages(t.Context(), &awsec2.DescribeImagesInput{})
				if err != nil || len(found.Images) == 0 {
					t.Fatalf("%v, %d images", err, len(found.Images))
				}
				made, err := c.CopyImage(t.Context(), &awsec2.CopyImageInput{Name: aws.String("kept"), SourceImageId: found.Images[0].ImageId, SourceRegion: aws.String(region)})
				if err != nil {
					t.Fatal(err)
				}
				kept = *made.ImageId
				for state := types.ImageStatePending; state != types.ImageStateAvailable; time.Sleep(time.Millisecond) {
					found, err := c.DescribeImages(t.Context(), &awsec2.DescribeImagesInput{ImageIds: []string{kept}})
					if err != nil {
						t.Fatal(err)
					}
					state = found.Images[0].State
				}
			})
			var once sync.Once
			w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
				if before(c) && slices.Contains([]string{c.Params["ImageId"], c.Params["ImageId.1"]}, kept) {
					once.Do(func() {
						if _, err := w.Client(region).DeregisterImage(t.Context(), &awsec2.DeregisterImageInput{ImageId: &kept}); err != nil {
							t.Error(err)
						}
					})
				}
				serve(rw)
			}
			want := []string{""}
			if name != "never" {
				want = append(want, kept)
			}
			var asked []string
			maker, diags := ebs.Factory(w.Cloud).New(input(plain("ami_name = \"web\"\n")))
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			b := w.Bake(t)
			var from string
			_, err := maker.Build(t.Context(), b.Scope, builder.Hooks{
				ResolveSource: func(_ context.Context, s builder.LaunchSource) (string, error) {
					source, asked = s.Image, append(asked, s.Unfit+s.Gone)
					if s.Gone != "" {
						return "", nil
					}
					return kept, nil
				},
				Provision: func(ctx context.Context, m builder.Machine) error {
					out, err := w.Client(region).DescribeInstances(ctx, &awsec2.DescribeInstancesInput{InstanceIds: []string{m.Data["ID"].Text}})
					if err == nil {
						from = *out.Reservations[0].Instances[0].ImageId
					}
					return err
				},
			})
			if closed := b.Scope.Close(t.Context(), context.Background()); err != nil || closed != nil {
				t.Fatalf("the launch failed (%v) or its teardown did (%v)", err, closed)
			}
			if !slices.Equal(asked, want) {
				t.Errorf("asked with %q, want %q", asked, want)
			}
			if image := map[bool]string{true: kept, false: source}[name == "never"]; from != image {
				t.Errorf("the machine is one of %s, not %s", from, image)
			}
			w.Quietly(func() {
				out, err := w.Client(region).DescribeInstances(t.Context(), &awsec2.DescribeInstancesInput{Filters: []types.Filter{{Name: aws.String("instance-state-name"), Values: []string{"running", "pending", "stopped"}}}})
				if err != nil || len(out.Reservations) > 0 {
					t.Errorf("left: %d, %v", len(out.Reservations), err)
				}
			})
		})
	}
}
