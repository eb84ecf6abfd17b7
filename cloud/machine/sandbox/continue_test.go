package sandbox

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestContinueCloudInit checks the state of cloud-init in a machine that continues the work of
// another.
func TestContinueCloudInit(t *testing.T) {
	const data = "var/lib/cloud/data/"
	finished := map[string]string{
		data + "status.json": "{}", data + "result.json": "{}", data + "instance-id": "i-old\n",
		"var/lib/cloud/instances/i-old/sem/config_ssh": "", "var/lib/cloud/instances/i-old/boot-finished": "",
	}
	with := func(name, text string) map[string]string {
		files := map[string]string{}
		for k, v := range finished {
			files[k] = v
		}
		files[name] = text
		if text == "" {
			delete(files, name)
		}
		return files
	}
	for name, tt := range map[string]struct {
		files   map[string]string
		done    bool
		renamed bool
	}{
		"finished":     {finished, true, true},
		"at work":      {with(data+"result.json", ""), false, false},
		"never there":  {nil, false, false},
		"cleaned":      {map[string]string{"var/lib/cloud/seed/x": ""}, true, false},
		"other's id":   {with(data+"instance-id", "i-other"), true, false},
		"no id":        {with(data+"instance-id", ".."), true, false},
		"id of a path": {with(data+"instance-id", "../instances/i-old"), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range tt.files {
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			link := filepath.Join(root, "var/lib/cloud/instance")
			if tt.files != nil {
				if err := os.Symlink("/var/lib/cloud/instances/i-old", link); err != nil {
					t.Fatal(err)
				}
			}
			done, err := (&bootSpec{ID: "i-new", Mode: ModeSingle}).continueCloudInit(root)
			if err != nil || done != tt.done {
				t.Fatalf("got %t, %v; want %t", done, err, tt.done)
			}
			if result, err := os.Readlink(filepath.Join(root, "run/cloud-init/result.json")); done != (err == nil && result == "../../var/lib/cloud/data/result.json") {
				t.Errorf("the result is %q, %v", result, err)
			}
			instances := filepath.Join(root, "var/lib/cloud/instances")
			if got := exists(filepath.Join(instances, "i-new/sem/config_ssh")) && !exists(filepath.Join(instances, "i-old")); got != tt.renamed {
				t.Errorf("renamed: %t, want %t", got, tt.renamed)
			}
			if !tt.renamed {
				return
			}
			if to, err := os.Readlink(link); to != "/var/lib/cloud/instances/i-new" {
				t.Errorf("the link leads to %q, %v", to, err)
			}
			if id, err := os.ReadFile(filepath.Join(root, data+"instance-id")); string(id) != "i-new\n" {
				t.Errorf("the id is %q, %v", id, err)
			}
		})
	}
}

// TestContinueHostile checks that the content of an image can neither block the start nor make it
// leave cloud-init's directory.
func TestContinueHostile(t *testing.T) {
	for name, prepare := range map[string]func(cloud string) error{
		"FIFO for the id": func(cloud string) error { return unix.Mkfifo(filepath.Join(cloud, "data/instance-id"), 0o644) },
		"directory for the id": func(cloud string) error {
			return os.Mkdir(filepath.Join(cloud, "data/instance-id"), 0o755)
		},
		"long id": func(cloud string) error {
			return os.WriteFile(filepath.Join(cloud, "data/instance-id"), bytes.Repeat([]byte("x"), 1<<20), 0o644)
		},
		"link for the instance": func(cloud string) error {
			return errors.Join(os.Symlink("../../../..", filepath.Join(cloud, "instances/i-old")),
				os.WriteFile(filepath.Join(cloud, "data/instance-id"), []byte("i-old"), 0o644))
		},
		"link for instances": func(cloud string) error {
			return errors.Join(os.Remove(filepath.Join(cloud, "instances")), os.Symlink("/", filepath.Join(cloud, "instances")),
				os.WriteFile(filepath.Join(cloud, "data/instance-id"), []byte("etc"), 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			cloud := filepath.Join(root, "var/lib/cloud")
			for _, dir := range []string{"data", "instances"} {
				if err := os.MkdirAll(filepath.Join(cloud, dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(root, "secret"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := prepare(cloud); err != nil {
				t.Fatal(err)
			}
			if done, err := (&bootSpec{ID: "i-new", Mode: ModeSingle}).continueCloudInit(root); !done || err != nil {
				t.Errorf("got %t, %v", done, err)
			}
			if exists(filepath.Join(cloud, "instances/i-new")) || exists(filepath.Join(cloud, "instance")) {
				t.Error("there is an instance")
			}
			if !exists(filepath.Join(root, "secret")) {
				t.Error("what is outside is gone")
			}
		})
	}
}
