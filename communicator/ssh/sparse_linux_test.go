package ssh_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"bake/communicator"
	"bake/communicator/commtest"
	"bake/communicator/ssh"
	"bake/step"
)

// used is how many bytes a file takes on disk.
func used(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// A sparse file stays sparse, there and back, near and far, alone and in a tree.
func TestSparse(t *testing.T) {
	const size = 1 << 25
	local := t.TempDir()
	f, err := os.Create(filepath.Join(local, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, text := range map[int64]string{5: "begin", 70000: strings.Repeat("x", 100000), size / 2: "middle", size - 3: "end"} {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size + 1000); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if used(t, f.Name()) > 1<<23 {
		t.Skip("the file system does not know of holes")
	}
	near := func(t *testing.T, _ ...string) (communicator.Communicator, *commtest.Server) {
		key, host := newKey(t), newKey(t)
		srv := commtest.SSHD(t, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey())
		return connect(t, t.Context(), options(srv), ssh.Target{Signers: []gossh.Signer{key.Signer}}), srv
	}
	for name, start := range map[string]func(*testing.T, ...string) (communicator.Communicator, *commtest.Server){"near": near, "far": far} {
		c, _ := start(t)
		dir, back := t.TempDir(), t.TempDir()
		root, err := os.OpenRoot(back)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := errors.Join(
			c.Put(t.Context(), dir, communicator.LocalFile("one", f.Name())),
			c.Put(t.Context(), dir, communicator.LocalDir("tree", local)),
			c.Get(t.Context(), filepath.Join(dir, "one"), root),
			c.Get(t.Context(), filepath.Join(dir, "tree"), root),
		); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{filepath.Join(dir, "one"), filepath.Join(dir, "tree/sparse"), filepath.Join(back, "one"), filepath.Join(back, "tree/sparse")} {
			holds(t, file, content, 0o644)
			if n := used(t, file); n > 1<<23 {
				t.Errorf("%s: %s takes %d bytes on disk", name, file, n)
			}
		}
	}
}

// After a reboot in the middle of an upload all of it is sent again, and the progress
// ends where it should.
func TestRebootDuringParts(t *testing.T) {
	real, err := exec.LookPath("cat")
	if err != nil {
		t.Skip(err)
	}
	bin, dir := t.TempDir(), t.TempDir()
	program(t, bin, "cat", fmt.Sprintf("case $1 in *boot_id) if [ -e %[1]s/up ]; then echo b; else echo a; : >%[1]s/up; fi;; *) exec %[2]s \"$@\";; esac\n", bin, real))
	const holes = 16 << 20
	local := filepath.Join(t.TempDir(), "sparse")
	content := append(make([]byte, holes), bytes.Repeat([]byte("data"), 1<<20)...)
	f, err := os.Create(local)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(content[holes:], holes)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if used(t, local) > holes {
		t.Skip("the file system does not know of holes")
	}
	key, host := newKey(t), newKey(t)
	srv := commtest.SSHD(t, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey(), "SetEnv SHLVL=2 PATH="+bin+":"+os.Getenv("PATH"))
	var mu sync.Mutex
	var last step.Progress
	c, err := ssh.Connect(t.Context(), scope(func(e step.Event) {
		mu.Lock()
		defer mu.Unlock()
		if e.Progress != nil {
			last = *e.Progress
		}
	}), options(srv), ssh.Target{Signers: []gossh.Signer{key.Signer}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Put(t.Context(), dir, communicator.LocalFile("x", local)); err != nil {
		t.Fatal(err)
	}
	holds(t, filepath.Join(dir, "x"), content, 0o644)
	mu.Lock()
	defer mu.Unlock()
	if n := int64(len(content) - holes); last.Done != n || last.Total != n {
		t.Errorf("it ends with %d of %d bytes, want %d", last.Done, last.Total, n)
	}
}
