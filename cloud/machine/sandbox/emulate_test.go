package sandbox

import (
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// program writes the header of a program file, with a loader unless it is static.
func program(t *testing.T, loader bool) string {
	t.Helper()
	text := make([]byte, 64+56)
	copy(text, "\x7fELF\x02\x01\x01")
	text[16], text[18], text[20] = 2, byte(elf.EM_X86_64), 1
	text[32], text[52], text[54], text[58] = 64, 64, 56, 64
	text[64] = byte(elf.PT_LOAD)
	if loader {
		text[64] = byte(elf.PT_INTERP)
	}
	text[56] = 1
	path := filepath.Join(t.TempDir(), "qemu")
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// Programs of another processor run by the host's kernel, or by a static qemu that is registered in
// the machine.
func TestEmulator(t *testing.T) {
	other, machine := "arm64", "b700"
	if runtime.GOARCH == "arm64" {
		other, machine = "amd64", "3e00"
	}
	host := t.TempDir()
	entry := func(flags, state string) {
		text := state + "\ninterpreter /usr/libexec/qemu\nflags: " + flags + "\noffset 0\nmagic 7f454c4602010100000000000000000002" + "00" + machine + "\nmask ffff\n"
		if err := os.WriteFile(filepath.Join(host, "qemu"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	static, dynamic := program(t, false), program(t, true)
	find := func(path string) func(string) (string, error) {
		return func(name string) (string, error) {
			if path == "" {
				return "", errors.New("not found")
			}
			return path, nil
		}
	}
	for _, test := range []struct {
		arch, flags, state, qemu, kernel string
		want, fails                      string
	}{
		{arch: "", want: ""},
		{arch: runtime.GOARCH, want: ""},
		{arch: "s390x", fails: "machines for s390x are not supported"},
		{arch: other, qemu: static, kernel: "6.7.0-generic", want: static},
		{arch: other, qemu: static, kernel: "10.0", want: static},
		{arch: other, qemu: static, kernel: "6.1.0-37-amd64", fails: "systemctl restart systemd-binfmt"},
		{arch: other, qemu: static, kernel: "odd", fails: "only the host"},
		{arch: other, qemu: dynamic, kernel: "6.18.0", fails: "apt-get install qemu-user-static"},
		{arch: other, kernel: "6.18.0", fails: "apt-get install qemu-user-static"},
		{arch: other, flags: "POCF", state: "enabled", kernel: "6.1.0", want: ""},
		{arch: other, flags: "POC", state: "enabled", kernel: "6.1.0", fails: "apt-get"}, // the file of the emulator is not visible in the machine
		{arch: other, flags: "F", state: "enabled", kernel: "6.1.0", fails: "apt-get"},   // without C, sudo does not work
		{arch: other, flags: "PF", state: "enabled", qemu: static, kernel: "6.7.0", want: static},
		{arch: other, flags: "CF", state: "disabled", kernel: "6.1.0", fails: "apt-get"},
	} {
		entry(test.flags, test.state)
		got, err := emulator(test.arch, find(test.qemu), host, test.kernel)
		switch {
		case test.fails == "" && (err != nil || got != test.want):
			t.Errorf("%+v: %q, %v", test, got, err)
		case test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)):
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func TestRegistration(t *testing.T) {
	const want = `:bake-arm64:M::\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:` +
		`\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:/usr/bin/qemu-aarch64-static:POCF`
	if got := registration("arm64", "/usr/bin/qemu-aarch64-static"); got != want {
		t.Errorf("%s, not %s", got, want)
	}
}

// TestRunsOnce: whether programs of a processor run is looked up once; that they do not, again
// after a while.
func TestRunsOnce(t *testing.T) {
	var a answers
	asked, now, missing := 0, time.Now(), errors.New("missing")
	for i, step := range []struct {
		after time.Duration
		found error
		want  error
		asked int
	}{
		{0, missing, missing, 1}, {refusalHolds - 1, nil, missing, 1}, {refusalHolds, nil, nil, 2}, {time.Hour, missing, nil, 2},
	} {
		err := a.of("arm64", now.Add(step.after), func() error { asked++; return step.found })
		if !errors.Is(err, step.want) || asked != step.asked {
			t.Errorf("step %d: %v after %d questions", i, err, asked)
		}
	}
}
