package manifest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"bake/communicator"
)

// here is this host as a machine, without becoming root.
type here struct{ communicator.Communicator }

func (here) Run(ctx context.Context, c communicator.Command) (communicator.Status, error) {
	cmd := exec.CommandContext(ctx, "sh", "-s")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	fmt.Fprintln(c.Stdout, "Welcome!")
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return communicator.Status{Code: exit.ExitCode()}, nil
	}
	return communicator.Status{}, err
}

// says is a machine that always gives the same answer.
type says struct {
	communicator.Communicator
	text string
}

func (s says) Run(_ context.Context, c communicator.Command) (communicator.Status, error) {
	_, err := io.WriteString(c.Stdout, s.text)
	return communicator.Status{}, err
}

// strange are names that must not be mistaken for others.
var strange = []string{"a b", "new\nline", `back\slash`, `back\nslash`, "tab\t", "-n", "invalid\xff", "*", "$(id)", "ret\rurn", `quote"'`}

func tree(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("GNU findutils are needed")
	}
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range strange {
		write("etc/"+name, name)
		if err := os.Symlink(name, filepath.Join(root, "etc", "to "+name)); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/hostname", "web")
	write("usr/bin/su", "#!")
	write("tmp/x", "is not listed")
	write("var/log/x", "is not listed")
	write("home/admin/.ssh/authorized_keys", "ssh-ed25519 AAAA")
	return root
}

func list(t *testing.T, root string) *Manifest {
	t.Helper()
	m, err := read(t.Context(), here{}, root)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A machine's files are listed completely, whatever their names are, and so is the document.
func TestRead(t *testing.T) {
	m := list(t, tree(t))
	for _, name := range strange {
		if f := m.files["/etc/"+name]; f.kind != regular || !f.read || f.size != int64(len(name)) || f.mode != 0o644 {
			t.Errorf("%q: %+v", name, f)
		}
		if f := m.files["/etc/to "+name]; f.kind != link || f.target != name {
			t.Errorf("link to %q: %+v", name, f)
		}
	}
	if f := m.files["/"]; f.kind != 'd' {
		t.Errorf("/: %+v", f)
	}
	if f := m.files["/tmp"]; f.kind != 'd' {
		t.Errorf("/tmp: %+v", f)
	}
	for _, not := range []string{"/tmp/x", "/var/log/x"} {
		if _, ok := m.files[not]; ok {
			t.Errorf("%s is listed", not)
		}
	}
	var one, two bytes.Buffer
	if err := errors.Join(m.Write(&one), m.Write(&two)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same manifest makes different bytes")
	}
	again, err := Parse(&one)
	if err != nil {
		t.Fatal(err)
	}
	if c := Compare(m, again, nil); len(c) > 0 || again.Len() != m.Len() {
		t.Errorf("written and read: %v", c)
	}
}

// Every change of a file is found and described; changes of files that differ on each machine are
// not.
func TestCompare(t *testing.T) {
	root := tree(t)
	before := list(t, root)
	in := func(name string) string { return filepath.Join(root, name) }
	for _, err := range []error{
		os.WriteFile(in("etc/a b"), []byte("A B"), 0o644),  // unchanged
		os.WriteFile(in("etc/*"), []byte("longer"), 0o644), // unchanged
		os.Chmod(in("usr/bin/su"), 0o755|os.ModeSetuid),
		os.Chmod(in("tmp"), 0o777|os.ModeSticky),
		os.Remove(in("etc/-n")),
		os.Remove(in("etc/to -n")), os.Symlink("elsewhere", in("etc/to -n")),
		os.Remove(in("etc/tab\t")), os.Mkdir(in("etc/tab\t"), 0o755),
		os.WriteFile(in("usr/bin/new\x1b[31m"), nil, 0o644),     // as others
		os.WriteFile(in("etc/hostname"), []byte("web2"), 0o644), // unchanged
		os.WriteFile(in("etc/ssh_host_x"), nil, 0o644),          // as others
		os.WriteFile(in("home/admin/.ssh/authorized_keys"), nil, 0o600),
		os.WriteFile(in("tmp/y"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, c := range Compare(before, list(t, root), Own([]string{"/etc/ssh_*"})) {
		got = append(got, c.String())
	}
	want := []string{
		`/etc/* 1 bytes are now 6`,
		`/etc/-n is gone`,
		`/etc/a b content c8687a08… is now fea4c5ce…`,
		`/etc/to -n leads to elsewhere and no longer to -n`,
		`"/etc/tab\t" was a file and is a directory`,
		`/tmp mode 0755 is now 1777`,
		`/usr/bin/su mode 0644 is now 4755`,
		`"/usr/bin/new\x1b[31m" is new`,
	}
	for _, w := range want {
		if !strings.Contains(strings.Join(got, "\n")+"\n", w+"\n") {
			t.Errorf("not said: %s", w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("said:\n%s", strings.Join(got, "\n"))
	}
}

// A file with an unknown digest does not count as unchanged.
func TestUnread(t *testing.T) {
	unread := &Manifest{files: map[string]file{"/x": {kind: regular}}}
	if c := Compare(unread, unread, nil); len(c) != 1 {
		t.Errorf("%v", c)
	}
}

// The output of a machine is refused unless all of it is a list of files.
func TestHostileMachine(t *testing.T) {
	const sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	whole := "f 644 0 0 0\x00./x\x00\x00end\x00" + sum + "  ./x\nend\n"
	plain := func(text string) string {
		return "\n\x01bake cat\n" + base64.StdEncoding.EncodeToString([]byte(text)) + "\n\n"
	}
	if _, err := read(t.Context(), says{text: plain(whole)}, "/"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":       "",
		"greeting":      "Welcome!\n",
		"endless line":  strings.Repeat("x", 1<<17),
		"cut":           plain(whole[:20]),
		"no digests":    plain("f 644 0 0 0\x00./x\x00\x00end\x00"),
		"no end":        plain(strings.TrimSuffix(whole, "end\n")),
		"no number":     plain("f 644 0 zero 0\x00./x\x00\x00end\x00end\n"),
		"mode":          plain("f 77777 0 0 0\x00./x\x00\x00end\x00end\n"),
		"size":          plain("f 644 0 0 -1\x00./x\x00\x00end\x00end\n"),
		"short digest":  plain("f 644 0 0 0\x00./x\x00\x00end\x00abcd  ./x\nend\n"),
		"bad digest":    plain("f 644 0 0 0\x00./x\x00\x00end\x00" + strings.Repeat("z", 64) + "  ./x\nend\n"),
		"long path":     plain("f 644 0 0 0\x00" + strings.Repeat("x/", maxLine) + "\x00\x00end\x00end\n"),
		"no base64":     "\n\x01bake cat\n\x00\x01\x02\n\n",
		"no gzip":       "\n\x01bake gzip -1c\n" + base64.StdEncoding.EncodeToString([]byte(whole)) + "\n\n",
		"more follows":  plain(whole) + strings.Repeat("y\n", 1<<16),
		"no blank line": strings.TrimSuffix(plain(whole[:30]), "\n\n"),
	} {
		if m, err := read(t.Context(), says{text: text}, "/"); err == nil {
			t.Errorf("%s: %d files", name, m.Len())
		}
	}
}

// An incomplete document is refused.
func TestParseDamaged(t *testing.T) {
	pack := func(text string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := io.WriteString(z, text); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	good := header + "\nd 0755 0 0 \"/\"\nf 0644 0 0 \"/x\" 3 -\nl 0777 0 0 \"/y\" \"x\"\nend\n"
	if m, err := Parse(strings.NewReader(pack(good))); err != nil || m.Len() != 3 {
		t.Fatalf("Parse = %v, %v, want 3 files", m, err)
	}
	for _, text := range []string{
		"", good, pack(""), pack("other\nend\n"), pack(strings.TrimSuffix(good, "end\n")), pack(good)[:40],
		pack(header + "\nf 0644 0 0 /x 3 -\nend\n"), pack(header + "\nf 0644 0 0 \"/x\"\nend\n"), pack(header + "\nf 0644 0 0 \"/x\" 3 abc\nend\n"),
		pack(header + "\nd 0755 0 0 \"/\" 1\nend\n"), pack(header + "\nl 0777 0 0 \"/y\"\nend\n"), pack(header + "\nlong 0777 0 0 \"/y\"\nend\n"),
	} {
		if m, err := Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%q: %d files", text, m.Len())
		}
	}
}

// mounting is this host with another file system, which contains a file, mounted at a directory.
type mounting struct {
	communicator.Communicator
	at string
}

func (m mounting) Run(ctx context.Context, c communicator.Command) (communicator.Status, error) {
	cmd := exec.CommandContext(ctx, "unshare", "-rm", "sh", "-c", `mount -t tmpfs none "$0" && echo x >"$0/f" && exec sh -s`, m.at)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	return communicator.Status{}, cmd.Run()
}

// Files of the image on file systems other than the root are included; those on file
// systems mounted from elsewhere are not.
func TestFileSystems(t *testing.T) {
	root := tree(t)
	if out, err := exec.CommandContext(t.Context(), "unshare", "-rm", "true").CombinedOutput(); err != nil {
		t.Skipf("there are no namespaces: %v: %s", err, out)
	}
	if err := os.Mkdir(filepath.Join(root, "srv"), 0o755); err != nil {
		t.Fatal(err)
	}
	for kind, want := range map[string]bool{"ext4": true, "nfs4": false} {
		table := "# <file system> <mount point>\nLABEL=srv /srv/ " + kind + " defaults 0 2\nproc /proc proc defaults 0 0\n"
		if err := os.WriteFile(filepath.Join(root, "etc/fstab"), []byte(table), 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := read(t.Context(), mounting{at: filepath.Join(root, "srv")}, root)
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := m.files["/srv/f"]; ok != want || ok && !f.read {
			t.Errorf("%s: /srv/f is listed: %t, %+v", kind, ok, f)
		}
	}
}
