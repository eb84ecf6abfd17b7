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

// supervisorMemory is added to a machine's memory limit for its shim.
const supervisorMemory = 64 << 20

const cpuPeriod = 100_000 // microseconds

// limitControllers are the controllers that enforce a machine's limits.
func limitControllers() []string { return []string{"memory", "pids", "cpu"} }

// enableControllers enables the limit controllers for the groups below the driver's own.
// Controllers that the host does not offer stay disabled; see checkLimits.
func (g *cgroups) enableControllers() {
	for _, c := range limitControllers() {
		_ = os.WriteFile(filepath.Join(g.parent, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

// v1Hierarchies finds the mount points of version 1 controllers in a mountinfo file.
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

// settings returns the values of a controller's files that enforce the limits.
func settings(l machine.Limits, controller string, v1 bool) map[string]string {
	out := map[string]string{}
	switch {
	case controller == "memory" && l.Memory > 0:
		bytes := strconv.FormatInt(l.Memory+supervisorMemory, 10)
		if v1 {
			out["memory.limit_in_bytes"] = bytes
			out["memory.memsw.limit_in_bytes"] = bytes // memory plus swap; only where swap is counted
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

// optional reports whether a kernel may lack a file though it has the controller's others.
func optional(file string) bool {
	return file == "memory.memsw.limit_in_bytes" || file == "memory.swap.max"
}

func set(dir string, values map[string]string) error {
	// Sorted by name, because the limit with swap may not be below the limit without it.
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

// limit enforces the machine's limits on the process pid, which has not started any other process
// yet, as far as the host's control groups allow. It adds the version 1 groups that it makes to
// m.v1.
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
			if errors.Is(err, fs.ErrExist) && slices.Contains(m.v1, dir) { // cpu shares its hierarchy with another controller
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
		if err := joinGroup(dir, pid); err != nil {
			return err
		}
	}
	return nil
}

// hasController reports whether a cgroup v2 directory offers a controller.
func hasController(dir, controller string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(b)), controller)
}

// unlimited returns the kinds of limits that this host's control groups cannot enforce.
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

// manager returns the group of the user's systemd.
func (g cgroups) manager() string {
	uid := os.Getuid()
	return filepath.Join(g.mount, "user.slice", fmt.Sprintf("user-%d.slice", uid), fmt.Sprintf("user@%d.service", uid))
}

// scopeProperties returns the limits as properties of a transient systemd unit, as arguments of
// busctl(1): their number, then the properties.
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

// limitCPUs limits the processes that the calling thread starts from now on to as many CPUs as the
// machine has, if the host has more. Machines are distributed over the CPUs by their id.
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
