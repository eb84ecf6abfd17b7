package images_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/builder/amazon/internal/access"
	"bake/cloud"
)

// TestUsers: what keeps an image that is to be replaced, and who else hears of it.
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
		for _, u := range images.Users(t.Context(), session, home, found.Images) {
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
	if len(got) != 3 || !strings.Contains(got[0], "a channel names it") || !strings.Contains(got[1], "launch template lt-") || strings.Contains(got[1], "!") || !strings.Contains(got[2], "by the parameter /golden/web") {
		t.Errorf("%q", got)
	}

	// Whoever may not ask is not told, and images of bake's stay then.
	tagged := w.image(home, "tagged", images.ImageTag, "web")
	w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Service == "ec2" {
			http.Error(rw, "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>No.</Message></Error></Errors></Response>", http.StatusForbidden)
			return
		}
		http.Error(rw, `{"__type":"AccessDeniedException","message":"No."}`, http.StatusBadRequest)
	})
	of := func(id string, tags ...types.Tag) []types.Image {
		return []types.Image{{ImageId: aws.String(id), Tags: tags}}
	}
	if got := images.Users(t.Context(), session, home, of(next)); got != nil {
		t.Errorf("who may not ask is told %v", got)
	}
	refused := images.Users(t.Context(), session, home, of(tagged, types.Tag{Key: aws.String(images.ImageTag), Value: aws.String("web")}))
	if len(refused) != 1 || !refused[0].Must || !strings.Contains(refused[0].By, "whether a channel names it is not known") || !strings.Contains(refused[0].By, "DescribeParameters") {
		t.Errorf("who may not ask about an image of bake's is told %v", refused)
	}
}

// moved has a channel name an image as bake has it.
func (w *world) moved(name, image string) {
	w.t.Helper()
	s, _, _ := w.copying()
	w.fatal(w.outlet(builder.Distribution{}).Enter(w.t.Context(), s, name, "bake: test", []builder.Placed{{Account: ownID, Region: home, ID: image}}))
	w.fatal(s.Close(w.t.Context(), w.t.Context()))
}
