package sandbox

import (
	"fmt"
	"maps"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"bake/cloud/machine"

	"golang.org/x/crypto/ssh"
)

// TestLimits lets a machine try to exceed its size.
func TestLimits(t *testing.T) {
	b := newBench(t, Options{})
	if missing := b.driver.groups.unlimited(); len(missing) > 0 {
		t.Skipf("this host limits machines in no way as to %s", strings.Join(missing, ", "))
	}
	spec := b.spec()
	spec.Limits = machine.Limits{CPUs: 1, Memory: 384 << 20, Processes: 300}
	m := b.start(spec)
	c := b.login(spec)
	if got := b.run(c, "nproc"); got != "1" {
		t.Errorf("the machine has %s CPUs", got)
	}
	// Every Debian system has perl-base.
	if out, err := try(c, `perl -e '$x = "a" x (700 * 1024 * 1024); print length $x'`); err == nil {
		t.Errorf("700 MiB were had of 384: %s", out)
	}
	b.run(c, `perl -e '$x = "a" x (40 * 1024 * 1024)'`)
	if got := b.run(c, `perl -e '$| = 1; for (1..600) { $p = fork; last unless defined $p; if (!$p) { sleep 60; exit } push @p, $p } print @p < 300 ? "limited" : "free"; kill 9, @p'`); !strings.Contains(got, "limited") {
		t.Errorf("600 processes: %s", got)
	}
	if f := b.driver.checkFuse(t.Context()); !f.OK {
		t.Errorf("bake doctor finds %+v", f)
	}
	looksItsSize(b, c, spec.Limits)
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if e := m.Exit(); e.Err != nil {
		t.Error(e.Err)
	}
	for _, parent := range append([]string{b.driver.groups.parent}, b.driver.groups.v1["memory"], b.driver.groups.v1["pids"], b.driver.groups.v1["cpu"]) {
		if left, _ := filepath.Glob(filepath.Join(parent, "*"+spec.ID)); parent != "" && left != nil {
			t.Errorf("left behind: %s", left)
		}
	}
}

// looksItsSize checks the output of the usual programs that show a machine's size.
func looksItsSize(b *bench, c *ssh.Client, l machine.Limits) {
	b.t.Helper()
	for command, want := range map[string]string{
		"free -b | awk '/^Mem/ {print $2} /^Swap/ {print $2}'":                                 fmt.Sprintf("%d\n0", l.Memory),
		"free -b | awk '/^Mem/ {print ($3 > 5000000 && $4 > 0 && $3 + $4 <= $2 && $7 <= $2)}'": "1",
		"wc -l < /proc/swaps": "1",
		"df -B1 --output=size /run /dev/shm | tail -n 2 | tr -d ' '":                              fmt.Sprintf("%d\n%d", (l.Memory/5+4095)/4096*4096, l.Memory/2),
		"nproc --all; nproc; getconf _NPROCESSORS_ONLN; lscpu -p=CPU | grep -vc '#'":              strings.TrimSpace(strings.Repeat(fmt.Sprintln(l.CPUs), 4)),
		"grep -c ^processor /proc/cpuinfo; grep -c ^cpu[0-9] /proc/stat":                          fmt.Sprintf("%[1]d\n%[1]d", l.CPUs),
		"ls -d /sys/devices/system/cpu/cpu[0-9]* | wc -l; grep -c '^model name' /proc/cpuinfo":    fmt.Sprintf("%[1]d\n%[1]d", l.CPUs),
		"test $(awk '/^btime/ {print $2}' /proc/stat) -gt $(( $(date +%s) - 180 )) && echo since": "since",
	} {
		if got := b.run(c, command); got != want {
			b.t.Errorf("%s says %q, not %q", command, got, want)
		}
	}
	// Memory that is used is shown, and is free again afterwards.
	const used = `open F, "/proc/meminfo"; while (<F>) { $v{$1} = $2 if /^(MemTotal|MemFree): *(\d+)/ } print int(($v{MemTotal} - $v{MemFree}) / 1024)`
	before, err := strconv.Atoi(b.run(c, "perl -e '"+used+"'"))
	during, err2 := strconv.Atoi(b.run(c, `perl -e '$x = "a" x (60 << 20); `+used+"'"))
	if err != nil || err2 != nil || during-before < 50 {
		b.t.Errorf("with 60 MiB more, %d MiB are in use and not %d (%v, %v)", during, before, err, err2)
	}
}

func TestV1Hierarchies(t *testing.T) {
	table := `30 20 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
31 20 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 20 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
33 20 0:30 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
`
	want := map[string]string{"cpu": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory"}
	if got := v1Hierarchies(strings.NewReader(table)); !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestSettings(t *testing.T) {
	l := machine.Limits{CPUs: 2, Memory: 1 << 30, Processes: 8192}
	for _, test := range []struct {
		controller string
		v1         bool
		want       map[string]string
	}{
		{"memory", false, map[string]string{"memory.max": "1140850688", "memory.swap.max": "0"}},
		{"memory", true, map[string]string{"memory.limit_in_bytes": "1140850688", "memory.memsw.limit_in_bytes": "1140850688"}},
		{"pids", false, map[string]string{"pids.max": "8192"}},
		{"cpu", false, map[string]string{"cpu.max": "200000 100000"}},
		{"cpu", true, map[string]string{"cpu.cfs_quota_us": "200000"}},
	} {
		if got := settings(l, test.controller, test.v1); !maps.Equal(got, test.want) {
			t.Errorf("%s: %v", test.controller, got)
		}
		if got := settings(machine.Limits{}, test.controller, test.v1); len(got) > 0 {
			t.Errorf("%s without limits: %v", test.controller, got)
		}
	}
}
