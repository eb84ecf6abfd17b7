package file_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	gossh "golang.org/x/crypto/ssh"

	"bake/builder"
	"bake/communicator/commtest"
	"bake/communicator/ssh"
	"bake/provisioner/file"
	"bake/provisioner/provisionertest"
	"bake/step"
)

// sshd returns a machine that is this computer, reached over OpenSSH.
func sshd(t *testing.T, method ssh.TransferMethod, lines ...string) builder.Machine {
	t.Helper()
	key, err := commtest.NewKeyPair("ed25519", 0, "test")
	if err != nil {
		t.Fatal(err)
	}
	host, err := commtest.NewKeyPair("ed25519", 0, "host")
	if err != nil {
		t.Fatal(err)
	}
	srv := commtest.SSHD(t, key.Signer.PublicKey(), host.PrivateKey, host.Signer.PublicKey(), lines...)
	o := ssh.Defaults()
	o.Host, o.Port, o.Username, o.FileTransferMethod = srv.Host, srv.Port, srv.User, method
	s := step.NewScope(step.Scope{Emit: func(step.Event) {}})
	c, err := ssh.Connect(t.Context(), s, &o, ssh.Target{Signers: []gossh.Signer{key.Signer}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return builder.Machine{Communicator: c, Data: builder.Data{"ConnType": builder.Text("ssh")}}
}

// TestForms goes through the forms of source and destination, as scp has them.
func TestForms(t *testing.T) {
	const failed = "failed"
	uploads := []struct {
		source, destination string
		want                string // the files below REMOTE, apart from what was there; or failed
	}{
		{"LOCAL/f", "REMOTE/new", "new"},
		{"LOCAL/f", "REMOTE/old", "old"}, // over a file
		{"LOCAL/f", "REMOTE/dir/", "dir/f"},
		{"LOCAL/f", "REMOTE/dir/new", "dir/new"},
		{"LOCAL/f", "REMOTE/dir", failed}, // which is a directory
		{"LOCAL/f", "REMOTE/none/", failed},
		{"LOCAL/f", "REMOTE/none/f", failed},
		{"LOCAL/f", "$HERE/new", "new"},
		{"LOCAL/f", "${HERE}/dir/", "dir/f"},
		{"LOCAL/f", "$NONE/no/such/f", failed},
		{"LOCAL/f", "REMOTE/a b/it's;$(touch bad)`touch bad`", "a b/it's;$(touch bad)`touch bad`"},
		{"LOCAL/f", "$HERE/a b/$(touch bad)", "a b/$(touch bad)"},
		{"LOCAL/f", "$HERE/$(touch bad)/f", failed},

		{"LOCAL/src", "REMOTE/dir", "dir/src/a dir/src/n/b"},
		{"LOCAL/src", "REMOTE/dir/", "dir/src/a dir/src/n/b"},
		{"LOCAL/src", "REMOTE/new", "new/a new/n/b"},
		{"LOCAL/src", "REMOTE/new/", "new/a new/n/b"},
		{"LOCAL/src", "$HERE/new", "new/a new/n/b"},
		{"LOCAL/src", "REMOTE/none/new", failed},
		{"LOCAL/src", "REMOTE/old", failed}, // which is a file
		{"LOCAL/src/", "REMOTE/dir", "dir/a dir/n/b"},
		{"LOCAL/src/", "REMOTE/dir/", "dir/a dir/n/b"},
		{"LOCAL/src/", "REMOTE/new", failed},
		{"LOCAL/src/", "REMOTE/new/", failed},
		{"LOCAL/src/", "REMOTE/old", failed},
		{"LOCAL/empty", "REMOTE/new", "new/"},
		{"LOCAL/latin", "REMOTE/new", "new/lat\xe9 new/sub\xe9/f"},
		{"LOCAL/latin/", "REMOTE/dir", "dir/lat\xe9 dir/sub\xe9/f"},
	}
	downloads := []struct{ source, destination, want string }{
		{"REMOTE/f", "LOCAL/new", "new"},
		{"REMOTE/f", "LOCAL/old", "old"},
		{"REMOTE/f", "LOCAL/dir/", "dir/f"},
		{"REMOTE/f", "LOCAL/none/", "none/f"},
		{"REMOTE/f", "LOCAL/none/x", "none/x"},
		{"REMOTE/f", "LOCAL/dir", failed},
		{"$HERE/f", "LOCAL/new", "new"},
		{"REMOTE/none", "LOCAL/new", failed},
		{"REMOTE/f/", "LOCAL/dir", failed},
		{"REMOTE/src", "LOCAL/new", failed},
		{"REMOTE/src/", "LOCAL/dir", "dir/src/a dir/src/n/b"},
		{"REMOTE/src/", "LOCAL/dir/", "dir/src/a dir/src/n/b"},
		{"REMOTE/src/", "LOCAL/none", "none/src/a none/src/n/b"},
		{"$HERE/src/", "LOCAL/none", "none/src/a none/src/n/b"},
		{"REMOTE/none/", "LOCAL/dir", failed},
		{"REMOTE/src/*", "LOCAL/dir", "dir/a dir/n/b"},
		{"$HERE/s?c", "LOCAL/dir", "dir/src/a dir/src/n/b"},
		{"REMOTE/[ef]", "LOCAL/dir", "dir/f"},
		{"REMOTE/none*", "LOCAL/dir", failed},
		{"REMOTE/latin/", "LOCAL/dir", "dir/latin/lat\xe9 dir/latin/sub\xe9/f"},
	}
	for _, method := range []ssh.TransferMethod{ssh.Shell, ssh.SFTP} {
		for _, download := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s download %t", method, download), func(t *testing.T) {
				here := t.TempDir()
				m := sshd(t, method, "SetEnv SHLVL=2 HERE="+here)
				n := len(uploads)
				if download {
					n = len(downloads)
				}
				for i := range n {
					var from, to, want string
					if download {
						from, to, want = downloads[i].source, downloads[i].destination, downloads[i].want
					} else {
						from, to, want = uploads[i].source, uploads[i].destination, uploads[i].want
					}
					w := world{remote: here, local: t.TempDir()}
					source, target := w.local, w.remote
					if download {
						source, target = w.remote, w.local
					}
					for _, dir := range []string{w.remote, w.local} {
						entries, _ := os.ReadDir(dir)
						for _, e := range entries {
							os.RemoveAll(filepath.Join(dir, e.Name()))
						}
					}
					for _, name := range []string{"f", "src/a", "src/n/b", "latin/lat\xe9", "latin/sub\xe9/f"} {
						write(t, filepath.Join(source, name), "new", 0o644)
					}
					write(t, target+"/old", "old", 0o644)
					for _, dir := range []string{target + "/dir", target + "/a b", source + "/empty"} {
						if err := os.Mkdir(dir, 0o755); err != nil {
							t.Fatal(err)
						}
					}
					options := &file.Options{Source: w.expand(from), Destination: w.expand(to), Direction: file.Upload}
					if download {
						options.Direction = file.Download
					}
					s, _ := provisionertest.Scope(t)
					err := file.Provisioner(options).Provision(t.Context(), s, m)
					if (err != nil) != (want == failed) {
						t.Errorf("%s to %s: got %v", from, to, err)
						continue
					}
					if want == failed {
						want = ""
					}
					if diff := cmp.Diff(w.expand(want), strings.Join(made(t, target), " ")); diff != "" {
						t.Errorf("%s to %s (-want +got):\n%s", from, to, diff)
					}
				}
			})
		}
	}
}

// made lists what has been written below dir, with a slash after directories that
// hold nothing.
func made(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			if entries, err := os.ReadDir(path); err == nil && len(entries) == 0 && name != "dir" && name != "a b" {
				names = append(names, name+"/")
			}
			return nil
		}
		if b, err := os.ReadFile(path); err != nil || string(b) == "new" {
			names = append(names, name)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
