package login_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"bake/internal/login"
)

func TestCommand(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands are for a POSIX shell")
	}
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
	// The name of a host or user is not taken for an option.
	args := login.Machine{Host: "-oProxyCommand=x", User: "-v"}.Args()
	if got, want := args[len(args)-4:], []string{"-l", "-v", "--", "-oProxyCommand=x"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSaveAgain: a reader gets a complete record while a machine is saved again.
func TestSaveAgain(t *testing.T) {
	runs := t.TempDir()
	save := func() {
		if _, err := login.Save(login.Dir(runs, "a"), login.Machine{Run: "a", Build: "null.z", Host: "h"}, "secret"); err != nil {
			t.Error(err)
		}
	}
	save()
	over := make(chan struct{})
	go func() {
		defer close(over)
		for range 200 {
			save()
		}
	}()
	for saving := true; saving; {
		select {
		case <-over:
			saving = false
		default:
		}
		if found, err := login.Find(runs, "a", "null.z"); err != nil || len(found) != 1 {
			t.Fatalf("got %v, %v", found, err)
		}
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
	// The user's own machine is listed once, although two runs used it.
	for _, run := range []string{"ca", "cb"} {
		if _, err := login.Save(login.Dir(runs, run), login.Machine{Run: run, Build: "null.z", Host: "mine"}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := login.Find(runs, "c", ""); err != nil || len(found) != 1 {
		t.Errorf("got %v, %v; want the newest", found, err)
	}
	// Unreadable records of another run do not affect this one.
	torn := filepath.Join(login.Dir(runs, "d"), "null.z.json")
	if err := errors.Join(os.Mkdir(filepath.Dir(torn), 0o700), os.WriteFile(torn, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if found, err := login.Find(runs, "aa", ""); err != nil || len(found) != 2 {
		t.Errorf("beside a file that cannot be read: %v, %v", found, err)
	}
	if _, err := login.Find(runs, "d", ""); err == nil || !strings.Contains(err.Error(), torn) {
		t.Errorf("a file that cannot be read: %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(runs, "*", "*"))
	for _, path := range append(files, login.Dir(runs, "aa")) {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
			t.Errorf("%s can be read by others: %v, %v", path, info.Mode(), err)
		}
	}
	if key, err := os.ReadFile(m.KeyFile); string(key) != "secret\n" {
		t.Errorf("the key is %q, %v", key, err)
	}
}
