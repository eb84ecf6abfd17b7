package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file replaces kernel files in /proc and /sys that describe the whole host. Their
// replacements show the memory limit of the machine's control group and the CPUs that the machine
// may use.

// processors returns the CPUs that the calling thread may use, and the number of the host's CPUs.
func processors() (usable []int, total int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, 0, os.NewSyscallError("sched_getaffinity", err)
	}
	for cpu := 0; len(usable) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			usable = append(usable, cpu)
		}
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, 0, err
	}
	for line := range strings.Lines(string(stat)) {
		if _, ok := statCPU(line); ok {
			total++
		}
	}
	return usable, total, nil
}

// statCPU returns the number of the CPU that a line of /proc/stat describes.
func statCPU(line string) (cpu int, ok bool) {
	name, _, _ := strings.Cut(line, " ")
	digits, ok := strings.CutPrefix(name, "cpu")
	if !ok || digits == "" {
		return 0, false
	}
	cpu, err := strconv.Atoi(digits)
	return cpu, err == nil
}

// kernelFiles returns the replacement files whose content changes over time. It must run on the
// thread that starts the machine, which has the CPUs and the clocks of the machine.
func (s *shim) kernelFiles() (files []kernelFile, err error) {
	if group := s.boot.MemoryGroup; group != "" {
		files = append(files, kernelFile{"/proc/meminfo", func() ([]byte, error) {
			host, err := os.ReadFile("/proc/meminfo")
			if err != nil {
				return nil, err
			}
			use, err := readMemoryUse(group)
			return []byte(meminfo(string(host), s.boot.Memory, use)), err
		}})
	}
	usable, total, err := processors()
	if err != nil || len(usable) == total {
		return files, err
	}
	booted := bootOffset(fmt.Sprintf("/proc/%d/timens_offsets", unix.Gettid()))
	return append(files, kernelFile{"/proc/stat", func() ([]byte, error) {
		host, err := os.ReadFile("/proc/stat")
		return []byte(stat(string(host), usable, booted)), err
	}}), nil
}

// bootOffset returns how many seconds after the host the machine was booted. It reads a file in the
// format described in time_namespaces(7).
func bootOffset(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0 // there are no time namespaces
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "boottime" {
			seconds, _ := strconv.ParseInt(f[1], 10, 64)
			return -seconds
		}
	}
	return 0
}

// openKernelFiles starts serving the replacement files and returns their mounts for the first
// process. If the host does not allow FUSE in machines, they see the host's files.
func (s *shim) openKernelFiles() (mounts []*os.File, err error) {
	files, err := s.kernelFiles()
	if err != nil {
		return nil, err
	}
	for _, k := range files {
		connection, err := openFuse(s.boot.Dir)
		if err != nil {
			break
		}
		tree, err := mountFuse(connection)
		if err != nil {
			connection.Close()
			break
		}
		mounts = append(mounts, tree)
		s.boot.KernelFiles = append(s.boot.KernelFiles, k.path)
		go k.serve(connection) // ends at the latest with this process
	}
	return mounts, nil
}

// memoryUse is the memory use of a control group's processes in bytes, by the names of cgroup v2's
// memory.stat; "" is the total.
type memoryUse map[string]int64

// readMemoryUse reads the memory use of a group of either version.
func readMemoryUse(dir string) (memoryUse, error) {
	total, prefix := "memory.current", ""
	b, err := os.ReadFile(filepath.Join(dir, total))
	if errors.Is(err, fs.ErrNotExist) {
		total, prefix = "memory.usage_in_bytes", "total_" // including the groups below
		b, err = os.ReadFile(filepath.Join(dir, total))
	}
	if err != nil {
		return nil, err
	}
	details, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return nil, err
	}
	use := parseMemoryStat(string(details), prefix)
	use[""], err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return use, err
}

// parseMemoryStat parses a memory.stat. The relevant lines start with prefix.
func parseMemoryStat(text, prefix string) memoryUse {
	older := map[string]string{"rss": "anon", "cache": "file", "mapped_file": "file_mapped", "dirty": "file_dirty", "writeback": "file_writeback"}
	use := memoryUse{}
	for line := range strings.Lines(text) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		if prefix != "" && older[name] != "" {
			name = older[name]
		}
		if n, err := strconv.ParseInt(number, 10, 64); err == nil {
			use[name] = n
		}
	}
	return use
}

// meminfo returns the host's /proc/meminfo with the figures of a machine with that much memory.
// Lines without a figure in control groups are unchanged.
func meminfo(host string, memory int64, use memoryUse) string {
	free := max(0, memory-use[""])
	cached := use["active_file"] + use["inactive_file"]
	slab := use["slab_reclaimable"] + use["slab_unreclaimable"]
	values := map[string]int64{
		"MemTotal": memory, "MemFree": free, "MemAvailable": min(memory, free+cached+use["slab_reclaimable"]),
		"Buffers": 0, "Cached": use["file"], "SwapCached": 0, "SwapTotal": 0, "SwapFree": 0, "Zswap": 0, "Zswapped": 0,
		"Active": use["active_anon"] + use["active_file"], "Inactive": use["inactive_anon"] + use["inactive_file"],
		"Active(anon)": use["active_anon"], "Inactive(anon)": use["inactive_anon"],
		"Active(file)": use["active_file"], "Inactive(file)": use["inactive_file"], "Unevictable": use["unevictable"],
		"Dirty": use["file_dirty"], "Writeback": use["file_writeback"], "AnonPages": use["anon"], "Mapped": use["file_mapped"],
		"Shmem": use["shmem"], "KReclaimable": use["slab_reclaimable"], "Slab": slab, "SReclaimable": use["slab_reclaimable"],
		"SUnreclaim": use["slab_unreclaimable"], "KernelStack": use["kernel_stack"], "PageTables": use["pagetables"],
		"CommitLimit": memory / 2, "Committed_AS": use["anon"] + use["shmem"],
	}
	var out strings.Builder
	for line := range strings.Lines(host) {
		name, _, _ := strings.Cut(line, ":")
		if value, ok := values[name]; ok {
			line = fmt.Sprintf("%-15s %8d kB\n", name+":", value>>10)
		}
		out.WriteString(line)
	}
	return out.String()
}

// stat returns the host's /proc/stat reduced to those CPUs, which are renumbered, for a machine
// that was booted that many seconds after the host.
func stat(host string, usable []int, booted int64) string {
	var each strings.Builder
	var sums []int64
	var rest strings.Builder
	for line := range strings.Lines(host) {
		fields := strings.Fields(line)
		cpu, ok := statCPU(line)
		switch {
		case ok && slices.Contains(usable, cpu):
			for i, f := range fields[1:] {
				n, _ := strconv.ParseInt(f, 10, 64)
				if i == len(sums) {
					sums = append(sums, 0)
				}
				sums[i] += n
			}
			fmt.Fprintf(&each, "cpu%d %s\n", slices.Index(usable, cpu), strings.Join(fields[1:], " "))
		case ok, len(fields) < 2, fields[0] == "cpu":
		case fields[0] == "intr", fields[0] == "softirq":
			fmt.Fprintf(&rest, "%s %s\n", fields[0], fields[1]) // only the sum, not the counts by interrupt
		case fields[0] == "btime":
			at, _ := strconv.ParseInt(fields[1], 10, 64)
			fmt.Fprintf(&rest, "btime %d\n", at+booted)
		default:
			rest.WriteString(line)
		}
	}
	var all strings.Builder
	all.WriteString("cpu ")
	for _, n := range sums {
		fmt.Fprintf(&all, " %d", n)
	}
	return all.String() + "\n" + each.String() + rest.String()
}

// cpuinfo returns the host's /proc/cpuinfo reduced to those CPUs, which are renumbered.
func cpuinfo(host string, usable []int) string {
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimRight(host, "\n"), "\n\n") {
		first, _, _ := strings.Cut(block, "\n")
		rest := block[len(first):]
		name, number, _ := strings.Cut(first, ":")
		if strings.TrimSpace(name) == "processor" {
			cpu, err := strconv.Atoi(strings.TrimSpace(number))
			if err != nil || !slices.Contains(usable, cpu) {
				continue
			}
			first = fmt.Sprintf("%s: %d", name, slices.Index(usable, cpu))
		}
		out.WriteString(first + rest + "\n\n")
	}
	return out.String()
}

// cpuFiles writes the CPUs of a machine that has fewer than the host below dir, which covers /sys.
// The working directory is the machine's root.
func cpuFiles(dir string) error {
	usable, total, err := processors()
	if err != nil || len(usable) == total {
		return err
	}
	const at = "devices/system/cpu"
	if err := os.MkdirAll(filepath.Join(dir, at), 0o755); err != nil {
		return err
	}
	list := "0"
	if n := len(usable); n > 1 {
		list = fmt.Sprintf("0-%d", n-1)
	}
	for _, name := range []string{"online", "present", "possible"} {
		if err := os.WriteFile(filepath.Join(dir, at, name), []byte(list+"\n"), 0o444); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(filepath.Join("sys", at))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if cpu, ok := statCPU(e.Name() + " "); ok && cpu >= len(usable) {
			// A whiteout of overlayfs.
			if err := unix.Mknod(filepath.Join(dir, at, e.Name()), unix.S_IFCHR, 0); err != nil {
				return &os.PathError{Op: "hide", Path: e.Name(), Err: err}
			}
		}
	}
	return nil
}

// coverKernelFiles mounts the machine's own files over the kernel's. The mounts of the files that
// the shim serves are the descriptors from first on.
func (b *bootSpec) coverKernelFiles(first int) error {
	usable, total, err := processors()
	if err != nil {
		return err
	}
	for i, path := range b.KernelFiles {
		if err := unix.MoveMount(first+i, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("cover %s: %w", path, err)
		}
		if err := unix.Close(first + i); err != nil {
			return os.NewSyscallError("close", err)
		}
	}
	texts := map[string]string{}
	if len(usable) < total {
		host, err := os.ReadFile("/proc/cpuinfo")
		if err != nil {
			return err
		}
		texts["cpuinfo"] = cpuinfo(string(host), usable)
	}
	if b.MemoryGroup != "" { // which has no swap
		texts["swaps"] = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	}
	for name, text := range texts {
		own := filepath.Join("/run/bake", name)
		if err := os.WriteFile(own, []byte(text), 0o444); err != nil {
			return err
		}
		if err := unix.Mount(own, filepath.Join("/proc", name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover /proc/%s: %w", name, err)
		}
	}
	return nil
}
