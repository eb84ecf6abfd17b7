package ebs_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/ebs"
	"bake/builder/amazon/internal/amazontest"
	"bake/communicator"
)

// verifies boots the image on one type of machine and runs a command there.
func verifies(ctx context.Context, image builder.Image) error {
	return image.Boot(ctx, builder.Boot{InstanceType: "t3.small"}, func(ctx context.Context, m builder.Machine) error {
		status, err := m.Run(ctx, communicator.Command{Line: "exit 3"})
		if err == nil && status.Code != 3 {
			err = fmt.Errorf("status %d", status.Code)
		}
		return err
	})
}

// The image is not copied, shared or tagged before it was verified, and the machine
// launched from it shares nothing with the build's machine.
func TestVerified(t *testing.T) {
	w := newWorld(t)
	var key string
	before := 0
	w.ImageCreated = func(ctx context.Context, image builder.Image) error {
		w.Mu.Lock()
		before = len(w.Calls)
		w.Mu.Unlock()
		for _, tag := range w.Describe(image.Region, image.ID).Tags {
			if *tag.Key == "Name" {
				t.Errorf("the image is tagged %s=%s before it was looked at", *tag.Key, *tag.Value)
			}
		}
		return image.Boot(ctx, builder.Boot{InstanceType: "t3.small"}, func(_ context.Context, m builder.Machine) error {
			key = m.Data["SSHPublicKey"].Text
			return nil
		})
	}
	b := w.Bake(t)
	var own string
	b.Provision = func(_ context.Context, m builder.Machine) error {
		own = m.Data["SSHPublicKey"].Text
		return nil
	}
	a, err := b.Build(t.Context(), plain(distributed+"\nuser_data = \"#!/bin/sh\"\niam_instance_profile = \"builders\"\nskip_profile_validation = true"))
	w.Fatal(errors.Join(err, b.Scope.Close(t.Context(), context.Background())))
	for _, c := range w.Calls[:before] {
		if slices.Contains([]string{"CopyImage", "ModifyImageAttribute", "ModifySnapshotAttribute"}, c.Action) {
			t.Errorf("%s before the image was looked at", c.Action)
		}
	}
	for _, c := range w.Calls[before:] {
		if c.Action == "RunInstances" {
			p := c.Params
			if p["ImageId"] != a.Images[region] || p["InstanceType"] != "t3.small" || p["UserData"] != "" || p["IamInstanceProfile.Name"] != "" || p["MetadataOptions.HttpTokens"] != "required" {
				t.Errorf("the machine of the image was launched with %v", p)
			}
		}
	}
	if key == "" || key == own {
		t.Errorf("the machine of the image has the key %q of the build", key)
	}
	for in, id := range a.Images {
		checkImage(t, w, in, id)
	}
	if left := w.Holdings(); len(left) != 6 {
		t.Errorf("there should be an image and a snapshot in each of 3 regions:\n%s", strings.Join(left, "\n"))
	}
}

func TestRejected(t *testing.T) {
	for fate, want := range map[builder.RejectAction]struct {
		holdings int
		state    types.ImageState
		tag      string
	}{
		builder.Delete:     {},
		builder.Keep:       {2, types.ImageStateAvailable, "bake:rejected"},
		builder.Quarantine: {2, types.ImageStateDisabled, "bake:quarantine"},
	} {
		t.Run(string(fate), func(t *testing.T) {
			w := newWorld(t)
			failed := errors.New("it does not start")
			w.ImageCreated = func(ctx context.Context, image builder.Image) error {
				err := image.Boot(ctx, builder.Boot{}, func(context.Context, builder.Machine) error { return failed })
				return &builder.RejectedError{Action: fate, Err: err}
			}
			b := w.Bake(t)
			a, err := b.Build(t.Context(), plain(distributed))
			if !errors.Is(err, failed) || !errors.Is(err, builder.ErrGate) {
				t.Errorf("error %v", err)
			}
			w.Fatal(b.Scope.Close(t.Context(), context.Background()))
			if left := w.Holdings(); len(left) != want.holdings {
				t.Errorf("left:\n%s", strings.Join(left, "\n"))
			}
			if want.tag == "" {
				return
			}
			out, err := w.Client(region).DescribeImages(t.Context(), &awsec2.DescribeImagesInput{
				Owners: []string{"self"}, IncludeDisabled: new(true),
			})
			w.Fatal(err)
			image := out.Images[0]
			var keys []string
			for _, tag := range image.Tags {
				keys = append(keys, *tag.Key)
			}
			if image.State != want.state || !slices.Contains(keys, want.tag) || slices.Contains(keys, "bake:run") || slices.Contains(keys, "Name") || a.Images[region] != *image.ImageId {
				t.Errorf("%s: %s with tags %v; artifact %v", *image.ImageId, image.State, keys, a)
			}
		})
	}
}

// Failures during the verification of an image leave nothing, and a resumed run verifies
// it at most once more.
func TestFaultsWhileVerifying(t *testing.T) {
	t.Parallel()
	amazontest.Faults(t, ebs.Factory, "ami_name = \"verified\"\ntags = { Name = \"web\" }", 2, func(w *world) { w.ImageCreated, w.ImageTags, w.FaultsFrom = verifies, marks, "CreateImage" })
}

func TestResumeVerifying(t *testing.T) {
	t.Parallel()
	amazontest.Resume(t, ebs.Factory, "ami_name = \"verified\"\ntags = { Name = \"web\" }", func(w *world) { w.ImageCreated, w.ImageTags = verifies, marks })
}

func marks(context.Context) (map[string]string, error) {
	return map[string]string{"bake:verified": "verify.boot"}, nil
}

// The image and its copies have their tags when they are handed over, whether or not
// the image was verified; a rejected image that is kept has none.
func TestMarked(t *testing.T) {
	for name, made := range map[string]func(context.Context, builder.Image) error{
		"nobody looks": nil,
		"verified":     func(context.Context, builder.Image) error { return nil },
		"kept": func(context.Context, builder.Image) error {
			return &builder.RejectedError{Action: builder.Keep, Err: errors.New("no")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.ImageCreated, w.ImageTags = made, marks
			b := w.Bake(t)
			a, err := b.Build(t.Context(), plain(distributed))
			if (err == nil) != (name != "kept") {
				t.Fatal(err)
			}
			w.Fatal(b.Scope.Close(t.Context(), context.Background()))
			if len(a.Images) != map[bool]int{true: 3, false: 1}[name != "kept"] {
				t.Fatalf("images %v", a.Images)
			}
			for in, id := range a.Images {
				marked := slices.ContainsFunc(w.Describe(in, id).Tags, func(tag types.Tag) bool {
					return *tag.Key == "bake:verified" && *tag.Value == "verify.boot"
				})
				if marked != (name != "kept") {
					t.Errorf("image %s in %s has its mark: %t", id, in, marked)
				}
			}
		})
	}
}

// The policy of a verified build has the additional permissions for verification, and only
// then: the cloud refuses what the policy does not allow.
func TestPolicyOfVerifying(t *testing.T) {
	boot := builder.Boot{InstanceType: "t3.small"}
	body := plain("ami_name = \"web\"\ntags = { Name = \"web\" }")
	build := func(p amazon.Policy) (image types.Image, refused []string, err error) {
		w := newWorld(t)
		w.ImageCreated = func(ctx context.Context, image builder.Image) error {
			err := image.Boot(ctx, boot, func(context.Context, builder.Machine) error { return errors.New("it does not start") })
			return &builder.RejectedError{Action: builder.Quarantine, Err: err}
		}
		w.Enforce(&amazontest.Evaluator{Foreign: strings.Join(w.Holdings(), "\n"), Policy: p}, func(what string) { refused = append(refused, what) })
		b := w.Bake(t)
		_, err = b.Build(t.Context(), body)
		w.Fatal(b.Scope.Close(t.Context(), context.Background()))
		w.Intercept = nil
		out, failed := w.Client(region).DescribeImages(t.Context(), &awsec2.DescribeImagesInput{Owners: []string{"self"}, IncludeDisabled: new(true)})
		w.Fatal(failed)
		if len(out.Images) > 0 {
			image = out.Images[0]
		}
		return image, refused, err
	}
	made, diags := ebs.Factory(amazon.Cloud{}).Outline(input(body))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	image, refused, err := build(amazon.PolicyFor([]amazon.Permitted{
		made.(amazon.Permitted), amazon.Verification{Of: made.(amazon.Verifying), Boots: []builder.Boot{boot}, Quarantines: true},
	}))
	if !errors.Is(err, builder.ErrGate) || refused != nil || image.State != types.ImageStateDisabled {
		t.Errorf("the image is %q; refused: %q; %v", image.State, refused, err)
	}
	image, refused, err = build(policyOf(t, input(body)))
	if err == nil || image.State == types.ImageStateDisabled || !strings.Contains(strings.Join(refused, "\n"), "ec2:CreateTags on arn:aws:ec2:us-east-1::image/ami") {
		t.Errorf("without the policy of the verification the image is %q; refused: %q; %v", image.State, refused, err)
	}
}

// An image that is verified before it is encrypted is the one that is encrypted.
func TestVerifiedBeforeEncryption(t *testing.T) {
	amazontest.Verified(t, newWorld(t), plain("ami_name = \"web\"\nencrypt_boot = true\nami_regions = [\"eu-west-1\"]\n"), builder.Boot{InstanceType: "t3.small"}, 4, nil)
}
