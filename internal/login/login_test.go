package login_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"bake/internal/login"
)

func TestCommand(t *testing.T) {
	for want, m := range map[string]login.Machine{
		"ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR 10.0.0.1": {Host: "10.0.0.1", Port: 22},
		"ssh -i '/my keys/a.pem' -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -p 2222 admin@h": {
			Host: "h", Port: 2222, User: "admin", KeyFile: "/my keys/a.pem"},
		`ssh -i k -o IdentitiesOnly=yes -o 'CertificateFile="/my keys/k-cert.pub"' -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR h`: {
			Host: "h", KeyFile: "k", Cert: "/my keys/k-cert.pub"},
		`ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o 'ProxyCommand='\''/a b/bake'\'' nc i-1 %p' admin@h`: {
			Host: "h", User: "admin", Proxy: []string{"/a b/bake", "nc", "i-1", "%p"}},
	} {
		if got := m.Command(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	// A host's or a user's name is no option.
	args := login.Machine{Host: "-oProxyCommand=x", User: "-v"}.Args()
	if got, want := args[len(args)-4:], []string{"-l", "-v", "--", "-oProxyCommand=x"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFind(t *testing.T) {
	runs := filepath.Join(t.TempDir(), "runs[1]") // no pattern
	save := func(run, build, key string) login.Machine {
		m, err := login.Save(login.Dir(runs, run), login.Machine{Run: run, Build: build, Host: run + build}, key)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := save("aa", "one.null.x/y", "secret")
	save("aa", "null.z", "")
	save("ab", "null.z", "")
	for _, tt := range []struct {
		run, build string
		want       int
	}{{"", "", 3}, {"a", "", 3}, {"aa", "", 2}, {"", "null.z", 2}, {"ab", "null.z", 1}, {"b", "", 0}} {
		found, err := login.Find(runs, tt.run, tt.build)
		if err != nil || len(found) != tt.want {
			t.Errorf("%q, %q: got %v, %v; want %d", tt.run, tt.build, found, err, tt.want)
		}
	}
	// The user's own machine, in two runs, is one.
	for _, run := range []string{"ca", "cb"} {
		if _, err := login.Save(login.Dir(runs, run), login.Machine{Run: run, Build: "null.z", Host: "mine"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := login.Find(runs, "c", ""); err != nil || len(found) != 1 {
		t.Errorf("got %v, %v; want the newest", found, err)
	}
	files, _ := filepath.Glob(filepath.Join(runs, "*", "*"))
	for _, path := range append(files, login.Dir(runs, "aa")) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v, %v", path, info.Mode(), err)
		}
	}
	if key, err := os.ReadFile(m.KeyFile); string(key) != "secret\n" {
		t.Errorf("the key is %q, %v", key, err)
	}
}
