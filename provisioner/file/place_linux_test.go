package file_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bake/builder"
	"bake/communicator"
	"bake/provisioner/file"
	"bake/provisioner/provisionertest"
)

// TestUploadRules: uploaded files get the owners and permissions of the last rule that sets them;
// existing files keep theirs.
func TestUploadRules(t *testing.T) {
	local := t.TempDir()
	for _, name := range []string{"plain", "secret", "sub/deep"} {
		path := filepath.Join(local, "tree", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := provisionertest.NewMachine(t)
	if err := os.Mkdir(m.Home+"/to", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.Home+"/to/before", nil, 0o604); err != nil {
		t.Fatal(err)
	}
	with := m.Builder()
	with.Uploads = []*builder.Upload{
		{Pattern: m.Home + "/t*", Mode: "0640", DirectoryMode: "0750"},
		{Pattern: "~/to/secret", Mode: "4700"},
		{Pattern: "/elsewhere", Mode: "0777"},
	}
	want := map[string]fs.FileMode{"before": 0o604, "plain": 0o640, "secret": 0o700 | fs.ModeSetuid, "sub": 0o750 | fs.ModeDir, "sub/deep": 0o640}
	if os.Getuid() == 0 {
		with.Uploads = append(with.Uploads, &builder.Upload{Pattern: "~/to/sub", Owner: "4321", Group: "1234"})
	}
	s, _ := provisionertest.Scope(t)
	p := provisionertest.New(t, file.Factory(), fmt.Sprintf("source = %q\ndestination = \"~/to\"", local+"/tree/"))
	if err := p.Provision(t.Context(), s, with); err != nil {
		t.Fatal(err)
	}
	for name, mode := range want {
		info, err := os.Stat(filepath.Join(m.Home, "to", name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v, want %v", name, info.Mode(), err, mode)
			continue
		}
		owner := uint32(os.Getuid()) // a user's number
		if os.Getuid() == 0 && strings.HasPrefix(name, "sub") {
			owner = 4321
		}
		if is, ok := info.Sys().(*syscall.Stat_t); ok && is.Uid != owner {
			t.Errorf("%s belongs to %d", name, is.Uid)
		}
	}
	if used := []bool{with.Uploads[0].Used(), with.Uploads[1].Used(), with.Uploads[2].Used()}; !used[0] || !used[1] || used[2] {
		t.Errorf("used: %t", used)
	}
}

// refusing is a machine whose login user may write to directories for temporary files only.
type refusing struct{ communicator.Communicator }

func (r refusing) Put(ctx context.Context, dst string, src fs.FS) error {
	if strings.Contains(dst, "root") {
		return fmt.Errorf("put: %w", fs.ErrPermission)
	}
	return r.Communicator.Put(ctx, dst, src)
}

// recording is a machine that keeps its command lines.
type recording struct {
	communicator.Communicator
	lines []string
}

func (r *recording) Run(ctx context.Context, c communicator.Command) (communicator.Status, error) {
	r.lines = append(r.lines, c.Line)
	return r.Communicator.Run(ctx, c)
}

// TestUploadModeAsRoot: files that root has written belong to root, who alone can set their
// permissions.
func TestUploadModeAsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	m := provisionertest.NewMachine(t)
	if err := os.Mkdir(m.Home+"/root", 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	r := &recording{Communicator: refusing{m}}
	with := m.Builder()
	with.Communicator, with.Uploads = r, []*builder.Upload{{Pattern: m.Home + "/root", Mode: "0640"}}
	s, _ := provisionertest.Scope(t)
	p := provisionertest.New(t, file.Factory(), fmt.Sprintf("content = \"text\"\ndestination = %q", m.Home+"/root/file"))
	if err := p.Provision(t.Context(), s, with); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(m.Home + "/root/file"); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v %v", info, err)
	}
	last := r.lines[len(r.lines)-1]
	if !strings.Contains(last, "chmod -- 0640") || !strings.Contains(last, "sudo -n") {
		t.Errorf("at last it ran %s", last)
	}
}

// TestUploadAsRoot: where only root may write, root copies the uploaded files, and no temporary
// file is left. For an unknown owner, the error is that of the machine.
func TestUploadAsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	m := provisionertest.NewMachine(t)
	if err := os.MkdirAll(m.Home+"/root/sub", 0o711); err != nil {
		t.Fatal(err)
	}
	local := t.TempDir()
	if err := os.Mkdir(local+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(local+"/sub/it's a file", []byte("text"), 0o604); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir())
	for owner, wrong := range map[string]string{"4321": "", "no-such-user": "no-such-user"} {
		with := m.Builder()
		with.Communicator = refusing{m}
		with.Uploads = []*builder.Upload{{Pattern: m.Home + "/root/*/*", Owner: owner}}
		s, _ := provisionertest.Scope(t)
		p := provisionertest.New(t, file.Factory(), fmt.Sprintf("source = %q\ndestination = %q", local+"/", m.Home+"/root"))
		err := p.Provision(t.Context(), s, with)
		if (err == nil) != (wrong == "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %v", owner, err)
		}
	}
	info, err := os.Stat(m.Home + "/root/sub/it's a file")
	if err != nil {
		t.Fatal(err)
	}
	if is, ok := info.Sys().(*syscall.Stat_t); info.Mode() != 0o604 || ok && is.Uid != 4321 {
		t.Errorf("%v", info)
	}
	if dir, err := os.Stat(m.Home + "/root/sub"); err != nil || dir.Mode().Perm() != 0o711 {
		t.Errorf("the directory that was there: %v %v", dir, err)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}
