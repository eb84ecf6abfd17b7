package images_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/builder/amazon/internal/access"
	"bake/cloud"
)

// TestUsers: the uses that prevent the replacement of an image, and those that are only
// reported.
func TestUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{})
	session := func() *access.Session {
		o := access.Defaults()
		o.Region = home
		s, err := access.Open(t.Context(), &o, nil, w.cloud, nil)
		w.fatal(err)
		return s
	}()
	users := func(ids ...string) (out []string) {
		found, err := w.client("default", home).DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: ids})
		w.fatal(err)
		for _, u := range images.Users(t.Context(), session, home, found.Images, false) {
			text := strings.NewReplacer(ids[0], "AMI").Replace(u.Image + " " + u.By)
			if u.Must {
				text += " !"
			}
			out = append(out, text)
		}
		return out
	}
	want := func(name string, got []string, lines ...string) {
		t.Helper()
		if diff := cmp.Diff(lines, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}

	plain, next := w.image(home, "plain"), w.image(home, "next")
	want("nothing", users(plain))
	held := w.image(home, "held", images.HoldTag, "ops: until March")
	want("held", users(held), "AMI held by the tag bake:hold: ops: until March !")

	w.parameter("/theirs", plain)
	want("a parameter of somebody else", users(plain))

	w.moved("/golden/web", plain)
	want("a channel", users(plain), "AMI a channel names it, the parameter /golden/web !")
	w.moved("/golden/web", next)
	want("a channel that named it before", users(plain), "AMI parameter /golden/web, as its previous value, which a rollback needs")

	w.template("fixed", next)
	w.template("by-parameter", "resolve:ssm:/golden/web")
	got := users(next)
	if len(got) != 3 || !strings.Contains(got[0], "a channel names it") || !strings.Contains(got[1], "launch template lt-") || strings.Contains(got[1]+got[2], "!") || !strings.Contains(got[1]+got[2], "by the parameter /golden/web") {
		t.Errorf("%q", got)
	}

	// A former value that cannot be read does not keep an image, and neither does a slow
	// service, which is reported. With must, other services are not queried.
	release := make(chan struct{})
	var calls []string
	var mu sync.Mutex
	w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		mu.Lock()
		calls = append(calls, c.Action)
		mu.Unlock()
		switch {
		case c.Action == "DescribeAutoScalingGroups":
			<-release
		case c.Action == "GetParameterHistory" || c.Action == "GetParameters" && strings.Contains(c.Body, ":1"):
			http.Error(rw, `{"__type":"AccessDeniedException","message":"No."}`, http.StatusBadRequest)
			return
		}
		serve(rw)
	})
	marked := w.image(home, "marked", images.ImageTag, "web")
	begun := time.Now()
	if got := users(marked); len(got) != 1 || !strings.HasPrefix(got[0], "AMI it was not found out in time who uses it: scaling") || strings.Contains(got[0], "!") {
		t.Errorf("slow services: %q", got)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("a service that only informs was waited for %s", took)
	}
	close(release)
	mu.Lock()
	calls = nil
	mu.Unlock()
	late := images.Users(t.Context(), session, home, []types.Image{{ImageId: aws.String(next)}}, true)
	if len(late) != 1 || !late[0].Must || slices.ContainsFunc(calls, func(c string) bool { return c != "DescribeParameters" && c != "GetParameters" }) {
		t.Errorf("late: %v, asked by %v", late, calls)
	}

	// Without permission for the queries, nothing is reported, and images made by bake
	// stay.
	tagged := w.image(home, "tagged", images.ImageTag, "web")
	w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Service == "ec2" {
			refuse(rw)
			return
		}
		http.Error(rw, `{"__type":"AccessDeniedException","message":"No."}`, http.StatusBadRequest)
	})
	of := func(id string, tags ...types.Tag) []types.Image {
		return []types.Image{{ImageId: aws.String(id), Tags: tags}}
	}
	if got := images.Users(t.Context(), session, home, of(next), false); got != nil {
		t.Errorf("who may not ask is told %v", got)
	}
	refused := images.Users(t.Context(), session, home, of(tagged, types.Tag{Key: aws.String(images.ImageTag), Value: aws.String("web")}), false)
	if len(refused) != 1 || !refused[0].Must || !strings.Contains(refused[0].By, "whether a channel names it is not known") || !strings.Contains(refused[0].By, "DescribeParameters") {
		t.Errorf("who may not ask about an image of bake's is told %v", refused)
	}
}

// moved makes a channel name an image, as moved by bake.
func (w *world) moved(name, image string) {
	w.t.Helper()
	w.enter(builder.Distribution{}, name, []builder.Placement{{Account: ownID, Region: home, ID: image}})
}
