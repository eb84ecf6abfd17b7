package manifest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bake/builder"
	"bake/postprocessor/manifest"
	"bake/postprocessor/postprocessortest"
	"bake/step"
)

func process(t *testing.T, body string, run step.Invocation, in *builder.Artifact) error {
	t.Helper()
	c := manifest.Factory(func() time.Time { return time.Unix(1795458963, 0) })
	out, _, err := postprocessortest.ProcessIn(t, c, body, step.Scope{Run: run, SourceType: "amazon-ebs", SourceName: "web"}, in)
	if err == nil && out != in {
		t.Errorf("the artifact became %v", out)
	}
	return err
}

func TestFormat(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.json")
	body := fmt.Sprintf("output = %q\ncustom_data = { a = \"b\" }", path)
	if err := process(t, body, step.Invocation{ID: "run-1"}, &builder.Artifact{ID: "eu-west-1:ami-1"}); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "disk.img")
	os.WriteFile(data, []byte("12345"), 0o644)
	body = fmt.Sprintf("output = %q\nstrip_time = true\nstrip_path = true", path)
	if err := process(t, body, step.Invocation{ID: "run-2"}, &builder.Artifact{ID: "File", Files: []string{data}}); err != nil {
		t.Fatal(err)
	}
	const want = `{
  "builds": [
    {
      "name": "web",
      "builder_type": "amazon-ebs",
      "build_time": 1795458963,
      "files": null,
      "artifact_id": "eu-west-1:ami-1",
      "packer_run_uuid": "run-1",
      "custom_data": {
        "a": "b"
      }
    },
    {
      "name": "web",
      "builder_type": "amazon-ebs",
      "files": [
        {
          "name": "disk.img",
          "size": 5
        }
      ],
      "artifact_id": "File",
      "packer_run_uuid": "run-2",
      "custom_data": null
    }
  ],
  "last_run_uuid": "run-2"
}`
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if list, _ := os.ReadDir(dir); len(list) != 2 {
		t.Errorf("left behind: %v", list)
	}
}

func builds(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var d struct{ Builds []any }
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return len(d.Builds)
}

func TestForce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.json")
	body := fmt.Sprintf("output = %q", path)
	for i, run := range []step.Invocation{{ID: "1"}, {ID: "2"}, {ID: "3", Force: true}, {ID: "3", Force: true}, {ID: "4"}} {
		if err := process(t, body, run, &builder.Artifact{}); err != nil {
			t.Fatal(err)
		}
		if got, want := builds(t, path), []int{1, 2, 1, 2, 3}[i]; got != want {
			t.Errorf("after write %d: %d builds, want %d", i+1, got, want)
		}
	}
}

func TestSideBySide(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.json")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := process(t, fmt.Sprintf("output = %q", path), step.Invocation{ID: "1"}, &builder.Artifact{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := builds(t, path); got != 4 {
		t.Errorf("%d builds, want 4", got)
	}
}

func TestFailures(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.json")
	os.WriteFile(path, []byte("not json"), 0o644)
	body := fmt.Sprintf("output = %q", path)
	if err := process(t, body, step.Invocation{}, &builder.Artifact{}); err == nil || !strings.Contains(err.Error(), "not a manifest") {
		t.Errorf("got %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "not json" {
		t.Errorf("the file was changed to %q", b)
	}
	body = fmt.Sprintf("output = %q", filepath.Join(dir, "missing/m.json"))
	if err := process(t, body, step.Invocation{}, &builder.Artifact{}); err == nil || !strings.Contains(err.Error(), "Cannot write the manifest") {
		t.Errorf("got %v", err)
	}
}

func TestConformance(t *testing.T) {
	postprocessortest.Suite{
		Factory: manifest.Factory(time.Now), Body: `output = "DIR/m.json"`,
		Unwritable: `output = "DIR/one/m.json"`, Names: "Cannot write the manifest",
	}.Run(t)
}

// Data that another program has added to a build stays.
func TestForeignFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.json")
	if err := os.WriteFile(path, []byte(`{"builds":[{"name":"old","size":12345678901234567890,"more":{"a":[1]}}],"last_run_uuid":"0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := process(t, fmt.Sprintf("output = %q", path), step.Invocation{ID: "1"}, &builder.Artifact{}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || builds(t, path) != 2 || !strings.Contains(string(b), `"size": 12345678901234567890`) {
		t.Errorf("got %s, %v", b, err)
	}
}

// A stale lock is not waited for forever, and is removed.
func TestStaleLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "m.json")
		if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := process(t, fmt.Sprintf("output = %q", path), step.Invocation{ID: "1"}, &builder.Artifact{}); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}
