package images_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"bake/builder/amazon"
	"bake/builder/amazon/images"
	"bake/cloud"
	"bake/internal/turns"
	"bake/step"
)

// copying is a scope with a ledger in a file, as a task has one.
func (w *world) copying() (s *step.Scope, l *step.FileLedger, path string) {
	w.t.Helper()
	dir := w.t.TempDir()
	l, err := step.CreateLedger(dir, step.Header{Run: "run"})
	w.fatal(err)
	w.t.Cleanup(func() { _ = l.Close() })
	return step.NewScope(step.Scope{Run: step.Invocation{ID: "run"}, Build: "images", Ledger: l, Emit: func(step.Event) {}, Grace: time.Minute}), l, filepath.Join(dir, "run.jsonl")
}

// copyAll makes copies in a task, and ends the task.
func (w *world) copyAll(ctx context.Context, a *images.Account, ref string, o images.CopyOptions) ([]images.Copied, error) {
	w.t.Helper()
	s, l, _ := w.copying()
	all, err := a.Copy(ctx, s, ref, o)
	w.fatal(s.Close(ctx, context.Background()))
	owned, lost := l.Owned()
	if lost != nil || len(owned) > 0 {
		w.t.Errorf("the ledger still owns %v (%v)", owned, lost)
	}
	return all, err
}

// TestEncryptedByDefault: for a copy encrypted with a default key, Copy reports whether
// it can be shared, consistent with sharing it.
func TestEncryptedByDefault(t *testing.T) {
	for name, c := range map[string]struct {
		from      *string // key of the image; nil: it is not encrypted
		all       bool    // the account encrypts everything in the region of the copy
		other     bool    // with a key of its own unless another is named
		o         images.CopyOptions
		shareable bool
	}{
		"plain":                             {shareable: true},
		"of an image with the default key":  {from: aws.String("")},
		"of an image with a key":            {from: aws.String("alias/golden")},
		"asked for":                         {o: images.CopyOptions{Encrypt: true}},
		"by the account":                    {all: true},
		"by the account, with its key":      {all: true, other: true, shareable: true},
		"asked for, with its key":           {other: true, o: images.CopyOptions{Encrypt: true}, shareable: true},
		"of an encrypted one, with its key": {from: aws.String(""), other: true, shareable: true},
		"with a key":                        {from: aws.String(""), all: true, o: images.CopyOptions{Keys: map[string]string{west: "alias/golden"}}, shareable: true},
		"with the key of AWS":               {o: images.CopyOptions{Keys: map[string]string{west: "alias/aws/ebs"}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, cloud.Options{})
			there := w.client("default", west)
			if c.all {
				_, err := there.EnableEbsEncryptionByDefault(t.Context(), &ec2.EnableEbsEncryptionByDefaultInput{})
				w.fatal(err)
			}
			if c.other {
				_, err := there.ModifyEbsDefaultKmsKeyId(t.Context(), &ec2.ModifyEbsDefaultKmsKeyIdInput{KmsKeyId: aws.String("alias/golden")})
				w.fatal(err)
			}
			id := w.register("default", home, "web", []string{w.snapshot("default", home, c.from)})
			c.o.To = []string{west}
			s, _, _ := w.copying()
			var warned []string
			s.Emit = func(e step.Event) {
				if e.Kind == step.Warning {
					warned = append(warned, e.Text)
				}
			}
			all, err := w.open(home).Copy(t.Context(), s, id, c.o)
			w.fatal(errors.Join(err, s.Close(t.Context(), context.Background())))
			named := len(c.o.Keys) > 0
			if said := strings.Contains(strings.Join(warned, "\n"), "(alias/aws/ebs), and cannot be shared"); said == (c.shareable || named) {
				t.Errorf("warnings: %q", warned)
			}
			_, err = w.open(west).Share(t.Context(), all[0].ID, images.SharingChange{With: []string{alice}})
			if refused := err != nil && strings.Contains(err.Error(), "the account's default key for EBS"); refused == c.shareable || err != nil && !refused {
				t.Errorf("shared: %v", err)
			}
		})
	}
}

// whole lists everything that the account has in both regions.
func (w *world) whole() (out []string) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	for _, region := range []string{home, west} {
		found, err := w.client("default", region).DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}, IncludeDisabled: aws.Bool(true)})
		w.fatal(err)
		for _, i := range found.Images {
			out = append(out, region+" image "+*i.Name+" "+string(i.State))
			for _, t := range i.Tags {
				if strings.HasPrefix(*t.Key, "bake:") {
					out = append(out, region+" image "+*i.Name+" has the tag "+*t.Key)
				}
			}
		}
		snapshots, err := w.client("default", region).DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
		w.fatal(err)
		for range snapshots.Snapshots {
			out = append(out, region+" snapshot")
		}
	}
	slices.Sort(out)
	return out
}

// TestCopy: copies have the tags of the image and the keys of their regions, but not
// its sharing; copying again makes nothing.
func TestCopy(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	snapshot := w.snapshot("default", home, nil)
	_, err := w.client("default", home).CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: []string{snapshot}, Tags: []types.Tag{{Key: aws.String("part"), Value: aws.String("root")}}})
	w.fatal(err)
	id := w.register("default", home, "web", []string{snapshot}, "env", "test", "team", "a")
	at := time.Now().Add(48 * time.Hour).Truncate(time.Minute).UTC()
	_, err = w.client("default", home).EnableImageDeprecation(t.Context(), &ec2.EnableImageDeprecationInput{ImageId: &id, DeprecateAt: &at})
	w.fatal(err)
	a := w.open(home)
	_, err = a.Share(t.Context(), id, images.SharingChange{With: []string{alice}})
	w.fatal(err)
	o := images.CopyOptions{To: []string{west, "eu-west-1"}, Tags: map[string]string{"env": "prod"}, Keys: map[string]string{west: "alias/golden"}}
	all, err := w.copyAll(t.Context(), a, id, o)
	w.fatal(err)
	if len(all) != 2 || all[0].Region != "eu-west-1" || all[1].Region != west {
		t.Fatalf("copies: %+v", all)
	}
	d, err := w.open(west).Show(t.Context(), "web", []string{home, west, "eu-west-1"})
	w.fatal(err)
	if diff := cmp.Diff(map[string]string{"env": "prod", "team": "a", images.KeyTag: "alias/golden"}, d.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"env": "prod", "part": "root"}, d.Parts[0].Tags); diff != "" {
		t.Errorf("tags of the snapshot (-want +got):\n%s", diff)
	}
	if !strings.HasSuffix(d.Parts[0].Key, ":alias/golden") || !d.Sharing.Empty() || d.Deprecated == nil || !d.Deprecated.Equal(at) {
		t.Errorf("key %s, shared with %s, deprecated %v", d.Parts[0].Key, d.Sharing, d.Deprecated)
	}
	copies := names(d.Copies)
	slices.Sort(copies)
	if diff := cmp.Diff([]string{"web eu-west-1", "web us-east-1"}, copies); diff != "" {
		t.Errorf("copies of the copy (-want +got):\n%s", diff)
	}
	if len(d.Lineage) != 1 || d.Lineage[0].ID != id || !d.Lineage[0].Copied {
		t.Errorf("made from %+v", d.Lineage)
	}
	w.watch(nil)
	all, err = w.copyAll(t.Context(), a, id, images.CopyOptions{To: []string{west}})
	if err != nil || len(all) != 1 || !all[0].Existing {
		t.Errorf("again: %+v, %v", all, err)
	}
	for _, c := range w.seen() {
		if c.changes() && c.Service == "ec2" {
			t.Errorf("again: %s was called", c.Action)
		}
	}
}

// TestCopiesOfACopy: images copied from an image are its copies, even if the image is
// itself a copy of a foreign image; other copies of that with other names are not.
func TestCopiesOfACopy(t *testing.T) {
	const debian = "ami-0435c543bf527c4bd" // of a publisher
	w := newWorld(t, cloud.Options{})
	a := w.open(home)
	made := func(ref, to, name string) string {
		t.Helper()
		all, err := w.copyAll(t.Context(), a, ref, images.CopyOptions{To: []string{to}, Name: name})
		w.fatal(err)
		return all[0].ID
	}
	web := made(debian, home, "web")
	made(debian, "eu-west-1", "web")
	made(debian, home, "other")
	made(web, west, "")
	made(made(web, home, "web-2"), home, "web-3")
	all := []string{"web eu-west-1", "web us-east-1", "web us-west-2", "web-2 us-east-1", "web-3 us-east-1"}
	for _, name := range []string{"web", "web-2", "web-3"} {
		d, err := a.Show(t.Context(), name, []string{home, west, "eu-west-1"})
		w.fatal(err)
		copies := names(d.Copies)
		slices.Sort(copies)
		others := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == name+" "+home })
		if diff := cmp.Diff(others, copies); diff != "" {
			t.Errorf("copies of %s (-want +got):\n%s", name, diff)
		}
	}
}

// TestCopyRefused: predictable failures are reported before anything is copied.
func TestCopyRefused(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	id := w.image(home, "web")
	taken := w.image(west, "taken")
	off := w.image(home, "off")
	_, err := w.client("default", home).DisableImage(t.Context(), &ec2.DisableImageInput{ImageId: &off})
	w.fatal(err)
	a := w.open(home)
	before := w.whole()
	many := map[string]string{}
	for n := range 49 {
		many[fmt.Sprint("tag-", n)] = "value"
	}
	for name, c := range map[string]struct {
		ref  string
		o    images.CopyOptions
		want string
	}{
		"name taken":        {id, images.CopyOptions{To: []string{"eu-west-1", west}, Name: "taken"}, "image " + taken + " in us-west-2"},
		"same region":       {id, images.CopyOptions{To: []string{home}}, "already has the name"},
		"unknown region":    {id, images.CopyOptions{To: []string{"eu-west-1", "mars-north-1"}}, "-to=mars-north-1"},
		"no region":         {id, images.CopyOptions{To: []string{"eu"}}, "-to=eu"},
		"nowhere":           {id, images.CopyOptions{}, "-to REGION"},
		"disabled":          {off, images.CopyOptions{To: []string{west}}, "is disabled"},
		"name":              {id, images.CopyOptions{To: []string{west}, Name: "a:b:c"}, "-name=a:b:c"},
		"key of elsewhere":  {id, images.CopyOptions{To: []string{west}, Keys: map[string]string{"": "arn:aws:kms:us-east-1:123456789012:key/mrk-00000000000000000000000000000000"}}, "in us-east-1"},
		"too many tags":     {id, images.CopyOptions{To: []string{west}, Tags: many}, "would have 49 tags"},
		"key for elsewhere": {id, images.CopyOptions{To: []string{west}, Keys: map[string]string{"eu-west-1": "alias/a"}}, "not copied to eu-west-1"},
	} {
		if all, err := w.copyAll(t.Context(), a, c.ref, c.o); err == nil || !strings.Contains(err.Error(), c.want) || len(all) > 0 {
			t.Errorf("%s: %v, %v", name, all, err)
		}
	}
	if diff := cmp.Diff(before, w.whole()); diff != "" {
		t.Errorf("something has changed (-before +after):\n%s", diff)
	}
}

// TestCopyFaults: whatever happens to a call, there is a complete copy that belongs to the
// user, or nothing, and the image is unchanged.
func TestCopyFaults(t *testing.T) {
	for _, f := range turns.One(t, []mishap{
		{name: "refused"}, {name: "answer lost", perform: true, lose: true}, {name: "cancelled after", perform: true, cancel: true},
		{name: "killed before", cancel: true, lose: true, kill: true}, {name: "killed after", perform: true, lose: true, cancel: true, kill: true},
	}) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, cloud.Options{})
			id := w.image(home, "web")
			none := w.whole()
			for n := 1; ; n++ {
				s, l, path := w.copying()
				a := w.open(home)
				ctx, cancel := context.WithCancelCause(t.Context())
				var action string
				var ledger []byte
				w.watch(func(i int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
					switch {
					case i > n && f.kill:
						refuse(rw) // the process is dead and makes no calls
						return
					case i != n:
						serve(rw)
						return
					}
					action = c.Action
					ledger, _ = os.ReadFile(path)
					if !f.perform && !f.lose {
						refuse(rw)
						return
					}
					answer := httptest.NewRecorder()
					if f.perform {
						serve(answer)
					}
					if f.cancel {
						cancel(errInterrupted)
					}
					panic(http.ErrAbortHandler)
				})
				all, err := a.Copy(ctx, s, id, images.CopyOptions{To: []string{west}})
				if struck := len(w.seen()) >= n; !struck {
					cancel(nil)
					if err != nil || len(all) != 1 {
						t.Errorf("without a fault: %v", err)
					}
					return
				}
				if f.cancel && !errors.Is(err, errInterrupted) {
					t.Errorf("call %d (%s): the error is not the cause: %v", n, action, err)
				}
				if f.kill {
					w.watch(nil)
					w.sweepAll(ledger)
					all = nil
				} else if cerr := s.Close(ctx, context.Background()); cerr != nil {
					w.watch(nil)
					w.fatal(s.Close(ctx, context.Background())) // one call fails, so a retry must succeed
				}
				w.watch(nil)
				cancel(nil)
				if owned, _ := l.Owned(); len(owned) > 0 && !f.kill {
					t.Errorf("call %d (%s): the ledger still owns %v", n, action, owned)
				}
				left := w.whole()
				for _, c := range all {
					_, err := w.client("default", c.Region).DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &c.ID, DeleteAssociatedSnapshots: aws.Bool(true)})
					w.fatal(err)
				}
				want := none
				if len(all) > 0 {
					want = []string{"us-east-1 image web available", "us-east-1 snapshot", "us-west-2 image web available", "us-west-2 snapshot"}
				}
				if diff := cmp.Diff(want, left); diff != "" {
					t.Fatalf("call %d (%s): (-want +got):\n%s%v", n, action, diff, err)
				}
			}
		})
	}
}

// sweepAll deletes what a copy of a ledger lists, as another process would.
func (w *world) sweepAll(ledger []byte) {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "ledger.jsonl")
	w.fatal(os.WriteFile(path, ledger, 0o600))
	l, err := step.OpenLedger(path)
	w.fatal(err)
	defer l.Close()
	owned, err := l.Owned()
	w.fatal(err)
	d := amazon.Destroyer(func(context.Context, string) (amazon.Cloud, error) { return w.as("default"), nil })
	for _, r := range slices.Backward(owned) {
		w.fatal(d.Destroy(context.WithoutCancel(w.t.Context()), r))
	}
}
