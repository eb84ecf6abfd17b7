package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bake/internal/imagetag"
)

var now = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func image(id, region string, age time.Duration, inputs []Input, more ...string) Image {
	i := Image{ID: id, Region: region, Created: now.Add(-age), Tags: Tags("web", inputs)}
	for _, tag := range more {
		i.Tags[tag] = "x"
	}
	return i
}

// An image is reused if it is the newest with the same inputs, usable, and in all regions.
func TestDecide(t *testing.T) {
	const day = 24 * time.Hour
	in := []Input{Text("build", "web"), Text("var.a", "1"), Of("file s.sh", []byte("x"))}
	other := []Input{Text("build", "web"), Text("var.a", "2"), Of("file t.sh", []byte("x"))}
	backwards := []Input{in[2], in[1], in[0], in[1]}
	for _, test := range []struct {
		name   string
		q      Question
		reuse  string
		reason string
	}{
		{"none", Question{Inputs: in}, "", "there is no image"},
		{"same", Question{Inputs: in, Images: []Image{image("i", "r", day, in)}}, "i", ""},
		{"same in another order", Question{Inputs: backwards, Images: []Image{image("i", "r", day, in)}}, "i", ""},
		{"force", Question{Inputs: in, Force: true, Images: []Image{image("i", "r", day, in)}}, "", "-force"},
		{"newest", Question{Inputs: in, Images: []Image{image("old", "r", 2*day, in), image("new", "r", day, in)}}, "new", ""},
		{"older one with the inputs", Question{Inputs: in, Images: []Image{image("old", "r", 2*day, in), image("new", "r", day, other)}}, "old", ""},
		{"too old", Question{Inputs: in, MaxAge: day, Images: []Image{image("i", "r", 8*day, in)}}, "", "8 days old, and max_age is 24h0m"},
		{"young enough", Question{Inputs: in, MaxAge: 9 * day, Images: []Image{image("i", "r", 8*day, in)}}, "i", ""},
		{"revoked", Question{Inputs: in, Images: []Image{image("i", "r", day, in, imagetag.Revoked)}}, "", "was revoked"},
		{"newest revoked", Question{Inputs: in, Images: []Image{image("old", "r", 2*day, in), image("i", "r", day, in, imagetag.Revoked)}}, "", "was revoked"},
		{"quarantine", Question{Inputs: in, Images: []Image{image("i", "r", day, in, "bake:quarantine")}}, "", "in quarantine"},
		{"unfinished", Question{Inputs: in, Images: []Image{image("i", "r", day, in, "bake:run")}}, "", "has not finished"},
		{"not everywhere", Question{Inputs: in, Targets: []string{"r", "s"}, Images: []Image{image("i", "r", day, in)}}, "", "not in s"},
		{"everywhere", Question{Inputs: in, Targets: []string{"r", "s"}, Images: []Image{image("i", "r", day, in), image("j", "s", day, in)}}, "i j", ""},
		{"changed", Question{Inputs: other, Images: []Image{image("i", "r", day, in)}}, "", "changed since i"},
		{"no record", Question{Inputs: other, Images: []Image{{ID: "i", Region: "r", Tags: map[string]string{InputsTag: "x"}}}}, "", "do not tell which"},
	} {
		if test.q.Now = now; test.q.Targets == nil {
			test.q.Targets = []string{"r"}
		}
		a := Decide(test.q)
		var ids []string
		for _, i := range a.Reuse {
			ids = append(ids, i.ID)
		}
		if got := strings.Join(ids, " "); got != test.reuse || !strings.Contains(a.Reason, test.reason) || (a.Reason == "") != (test.reuse != "") {
			t.Errorf("%s: reuses %q, %q", test.name, got, a.Reason)
		}
		if test.name == "changed" && fmt.Sprint(a.Changes) != "[file s.sh is gone: it was 2d711642 file t.sh is new: 2d711642 var.a: 1 -> 2]" {
			t.Errorf("changes: %v", a.Changes)
		}
	}
}

// A record fits into tags whatever the number of inputs, and is as precise as possible.
func TestRecord(t *testing.T) {
	for _, n := range []int{0, 1, 10, 60, 300, 5000} {
		in := []Input{Text(BuildInput, "web"), Text("var.a", "1")}
		for i := range n {
			in = append(in, Of(fmt.Sprintf("file dir%d/file%d.sh", i%7, i), fmt.Append(nil, i)))
		}
		tags := Tags("web", in)
		for key, value := range tags {
			if len(value) > tagLimit {
				t.Errorf("%d files: %s has %d characters", n, key, len(value))
			}
		}
		if len(tags) > 2+recordTags {
			t.Errorf("%d files: %d tags", n, len(tags))
		}
		r, err := read(tags)
		if err != nil || len(r.changes(in)) != 0 {
			t.Fatalf("%d files: %v, %v", n, err, r.changes(in))
		}
		in[1] = Text("var.a", "2")
		if n > 0 {
			in[2] = Of(in[2].Name, []byte("other"))
		}
		changed := r.changes(in)
		if want := min(n, 1) + 1; len(changed) != want {
			t.Errorf("%d files, level %d: %v", n, r.level, changed)
		}
	}
}

// Tags are untrusted: anyone may have written them.
func FuzzRecord(f *testing.F) {
	f.Add(Tags("web", []Input{Text("a", "b")})[recordTag+"1"])
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := read(map[string]string{recordTag + "1": text})
		if err == nil {
			_ = r.changes([]Input{Text("a", "b")})
		}
	})
}
