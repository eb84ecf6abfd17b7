package sandbox

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"bake/cloud/machine"
)

// TestSealedUnderLimits: the program is sealed whatever the limit of open files is, where children
// do not replace it if that is possible.
func TestSealedUnderLimits(t *testing.T) {
	for limit, want := range map[uint64]int{64: 48, 256: 192, 1024: 768, 2000: sealedFD, 1 << 20: sealedFD, unix.RLIM_INFINITY: sealedFD} {
		if got := lowestSealed(limit); got != want {
			t.Errorf("limit %d: descriptor %d, want %d", limit, got, want)
		}
	}
}

// TestNamespaceRemedy: the remedy is for what is wrong, not for what may be.
func TestNamespaceRemedy(t *testing.T) {
	started := func(err error) error { return &os.PathError{Op: "fork/exec", Path: "/proc/self/fd/1500", Err: err} }
	mapper := fmt.Errorf("%w: newuidmap: exit status 1: Operation not permitted", errMapper)
	few := map[string]string{"/proc/sys/user/max_user_namespaces": "90000", "/proc/sys/user/max_net_namespaces": "0"}
	for name, c := range map[string]struct {
		err   error
		files map[string]string
		want  string
	}{
		"open files":        {started(syscall.EMFILE), nil, "ulimit -n"},
		"processes":         {started(syscall.EAGAIN), nil, "ulimit -u"},
		"none allowed":      {started(syscall.ENOSPC), map[string]string{"/proc/sys/user/max_user_namespaces": "0"}, "sysctl user.max_user_namespaces=15000"},
		"one kind":          {started(syscall.ENOSPC), few, "sysctl user.max_net_namespaces=15000"},
		"used up":           {started(syscall.ENOSPC), nil, "sysctl user.max_user_namespaces=100000"},
		"no new privileges": {mapper, map[string]string{"/proc/self/status": "Name:\tbake\nNoNewPrivs:\t1\n"}, "NoNewPrivileges=no"},
		"wrong ranges":      {mapper, map[string]string{"/proc/self/status": "NoNewPrivs:\t0\n"}, "/etc/subuid"},
		"container":         {started(syscall.EPERM), nil, "--privileged"},
		"kernel":            {started(syscall.EINVAL), nil, "CONFIG_USER_NS"},
	} {
		got := namespaceRemedy(c.err, func(path string) string { return c.files[path] })
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %q does not contain %q", name, got, c.want)
		}
	}
}

// TestConsequences: a check that fails because there are no namespaces does not advise anything.
func TestConsequences(t *testing.T) {
	finding := func(f machine.Finding) func() machine.Finding { return func() machine.Finding { return f } }
	lacking := machine.Finding{Name: "user namespaces", Fatal: true, Detail: "refused", Remedy: "allow them"}
	broken := machine.Finding{Name: "overlay", Fatal: true, Detail: "failed", Remedy: "another kernel"}
	if got := needing(finding(lacking), finding(broken))(); got.Fatal || got.OK || got.Remedy != "" || got.Name != "overlay" {
		t.Errorf("a consequence is %+v", got)
	}
	for _, basis := range []machine.Finding{lacking, good("user namespaces", "")} {
		if got := needing(finding(basis), finding(good("overlay", "works")))(); got != good("overlay", "works") {
			t.Errorf("a success is %+v", got)
		}
	}
	if got := needing(finding(good("user namespaces", "")), finding(broken))(); got != broken {
		t.Errorf("a failure of its own is %+v", got)
	}
}
