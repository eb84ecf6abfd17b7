package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"bake/cloud/machine"

	"golang.org/x/sys/unix"
)

// supervisorMemory is what a machine's limit has on top for its shim.
const supervisorMemory = 64 << 20

const cpuPeriod = 100_000 // microseconds

// limitControllers are those that hold a machine to its size.
func limitControllers() []string { return []string{"memory", "pids", "cpu"} }

// enableControllers makes the groups below the driver's own have what limits them.
// What the host does not give is not there; see checkLimits.
func (g *cgroups) enableControllers() {
	for _, c := range limitControllers() {
		_ = os.WriteFile(filepath.Join(g.parent, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// v1Hierarchies finds where controllers are mounted in hierarchies of their own, as
// before cgroup v2, in a mountinfo file.
func v1Hierarchies(r io.Reader) map[string]string {
	found := map[string]string{}
	for s := bufio.NewScanner(r); s.Scan(); {
		before, after, _ := strings.Cut(s.Text(), " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if len(place) < 5 || len(kind) < 3 || kind[0] != "cgroup" {
			continue
		}
		for option := range strings.SplitSeq(kind[2], ",") {
			if slices.Contains(limitControllers(), option) && found[option] == "" {
				found[option] = unescapeMount(place[4])
			}
		}
	}
	return found
}

// settings are what a controller's files are to hold for limits to hold.
func settings(l machine.Limits, controller string, v1 bool) map[string]string {
	out := map[string]string{}
	switch {
	case controller == "memory" && l.Memory > 0:
		bytes := strconv.FormatInt(l.Memory+supervisorMemory, 10)
		if v1 {
			out["memory.limit_in_bytes"] = bytes
			out["memory.memsw.limit_in_bytes"] = bytes // with swap; only where swap is counted
		} else {
			out["memory.max"], out["memory.swap.max"] = bytes, "0"
		}
	case controller == "pids" && l.Processes > 0:
		out["pids.max"] = strconv.Itoa(l.Processes)
	case controller == "cpu" && l.CPUs > 0 && v1:
		out["cpu.cfs_quota_us"] = strconv.Itoa(l.CPUs * cpuPeriod)
	case controller == "cpu" && l.CPUs > 0:
		out["cpu.max"] = fmt.Sprintf("%d %d", l.CPUs*cpuPeriod, cpuPeriod)
	}
	return out
}

// optional are settings that a kernel may lack where it has the others.
func optional(file string) bool {
	return file == "memory.memsw.limit_in_bytes" || file == "memory.swap.max"
}

func set(dir string, values map[string]string) error {
	// The limit with swap may not be below the one without: in order of names.
	for _, file := range slices.Sorted(func(yield func(string) bool) {
		for file := range values {
			if !yield(file) {
				return
			}
		}
	}) {
		err := os.WriteFile(filepath.Join(dir, file), []byte(values[file]), 0)
		if err != nil && !optional(file) {
			return err
		}
	}
	return nil
}

// limit holds the machine of the process pid, which has not begun anything yet, to
// its size, as far as the host's control groups do. m.v1 are the groups made for it.
func (g cgroups) limit(m *running, id string, pid int) error {
	l := m.spec.Limits
	for _, c := range limitControllers() {
		values := settings(l, c, false)
		if m.group == nil || len(values) == 0 || !hasController(m.group.dir, c) {
			continue
		}
		if err := set(m.group.dir, values); err != nil {
			return err
		}
		if c == "memory" {
			m.memoryGroup = m.group.dir
		}
	}
	for c, parent := range g.v1 {
		values := settings(l, c, true)
		if len(values) == 0 {
			continue
		}
		name, err := groupName(id)
		if err != nil {
			return err
		}
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			if errors.Is(err, fs.ErrExist) && slices.Contains(m.v1, dir) { // cpu and another in one hierarchy
				err = nil
			}
			if err != nil {
				return err
			}
		}
		m.v1 = append(m.v1, dir)
		if err := set(dir, values); err != nil {
			return err
		}
		if c == "memory" {
			m.memoryGroup = dir
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return err
		}
	}
	return nil
}

// hasController reports whether a cgroup v2 directory can limit what it names.
func hasController(dir, controller string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(b)), controller)
}

// unlimited are the kinds of limits that this host's control groups do not give to
// machines.
func (g cgroups) unlimited() (missing []string) {
	names := map[string]string{"memory": "memory", "pids": "number of processes", "cpu": "CPU time"}
	for _, c := range limitControllers() {
		switch {
		case g.v1[c] != "":
		case g.parent != "" && enabled(g.parent, c):
		case g.parent == "" && g.scopes && hasController(g.manager(), c):
		default:
			missing = append(missing, names[c])
		}
	}
	return missing
}

func enabled(dir, controller string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	return err == nil && slices.Contains(strings.Fields(string(b)), controller)
}

// manager is the group of the user's systemd.
func (g cgroups) manager() string {
	uid := os.Getuid()
	return filepath.Join(g.mount, "user.slice", fmt.Sprintf("user-%d.slice", uid), fmt.Sprintf("user@%d.service", uid))
}

// scopeProperties are the limits as properties of a transient unit of systemd, in
// the words of busctl(1): how many, and what they are.
func scopeProperties(l machine.Limits) (n int, args []string) {
	add := func(name string, value int64) {
		if value > 0 {
			n++
			args = append(args, name, "t", strconv.FormatInt(value, 10))
		}
	}
	if l.Memory > 0 {
		add("MemoryMax", l.Memory+supervisorMemory)
	}
	add("TasksMax", int64(l.Processes))
	add("CPUQuotaPerSecUSec", int64(l.CPUs)*1_000_000)
	return n, args
}

// limitCPUs makes what the calling thread starts from now on see as many CPUs as
// the machine has, if the host has more. Machines are spread over those by id.
func limitCPUs(n int, id string) error {
	var have, want unix.CPUSet
	if err := unix.SchedGetaffinity(0, &have); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	total := have.Count()
	if n <= 0 || n >= total {
		return nil
	}
	var cpus []int
	for cpu := 0; len(cpus) < total; cpu++ {
		if have.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	start := 0
	for _, c := range []byte(id) {
		start = (start*31 + int(c)) % total
	}
	for i := range n {
		want.Set(cpus[(start+i)%total])
	}
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, &want))
}
