package sandbox

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// processor holds the names of a processor architecture in qemu-user and in ELF files.
type processor struct {
	qemu    string // as in the names of qemu's programs
	machine elf.Machine
}

// knownProcessors are the architectures of EC2's instances, by GOARCH.
var knownProcessors = map[string]processor{"amd64": {"x86_64", elf.EM_X86_64}, "arm64": {"aarch64", elf.EM_AARCH64}}

// binfmtDir is where interpreters for foreign programs are registered with the kernel.
const binfmtDir = "/proc/sys/fs/binfmt_misc"

// cannotRun is why this host does not run the programs of a processor, and a remedy.
type cannotRun struct{ why, remedy string }

func (e cannotRun) Error() string { return e.why + ": " + e.remedy }

// Runs implements [machine.Driver].
func (d *Driver) Runs(arch string) error {
	return d.runs.of(arch, time.Now(), func() error {
		_, err := emulator(arch, exec.LookPath, binfmtDir, release())
		return err
	})
}

// answers holds what is known of processors, by name: every list of images asks, and looking for
// an emulator takes a walk along the PATH.
type answers struct{ known sync.Map }

type answer struct {
	err error
	at  time.Time
}

// refusalHolds is how long a processor counts as one that has no emulator. The user may install one.
const refusalHolds = 10 * time.Second

// of returns the answer of ask. One that is known already is returned again, a refusal for
// refusalHolds.
func (a *answers) of(arch string, now time.Time, ask func() error) error {
	if last, ok := a.known.Load(arch); ok {
		if l := last.(answer); l.err == nil || now.Sub(l.at) < refusalHolds {
			return l.err
		}
	}
	err := ask()
	a.known.Store(arch, answer{err, now})
	return err
}

// emulator returns the program that emulates a processor for a machine. It is empty if the kernel
// needs none, or has one registered already. A machine can register its own since Linux 6.7; before
// that only the host can. kernel is the release of the kernel, and look finds a program by its
// name.
func emulator(arch string, look func(string) (string, error), registered, kernel string) (string, error) {
	if arch == "" || arch == runtime.GOARCH {
		return "", nil
	}
	p, known := knownProcessors[arch]
	if !known {
		return "", fmt.Errorf("machines for %s are not supported", arch)
	}
	if hostEmulates(registered, p.machine) {
		return "", nil
	}
	for _, name := range []string{"qemu-" + p.qemu + "-static", "qemu-" + p.qemu} {
		path, err := look(name)
		if err != nil || !static(path) || strings.Contains(path, ":") {
			continue
		}
		if path, err = filepath.Abs(path); err != nil {
			return "", err
		}
		if !atLeast(kernel, 6, 7) {
			return "", cannotRun{
				fmt.Sprintf("this host runs programs for %s, and with its kernel (%s) only the host can register an emulator for %s", runtime.GOARCH, kernel, path),
				"systemctl restart systemd-binfmt, or apt-get install binfmt-support",
			}
		}
		return path, nil
	}
	return "", cannotRun{fmt.Sprintf("this host runs programs for %s and has no emulator for %s", runtime.GOARCH, arch), "apt-get install qemu-user-static"}
}

// hostEmulates reports whether the host's kernel has an emulator for a processor that works in
// machines too. The kernel must have opened it already, because it is not in the machines' file
// system (F), and take the rights of a program from its owner and mode, which sudo needs (C).
func hostEmulates(dir string, machine elf.Machine) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		fields := map[string]string{}
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			key, value, _ := strings.Cut(lines.Text(), " ")
			fields[strings.TrimSuffix(key, ":")] = value
		}
		_, enabled := fields["enabled"]
		// The magic is the start of an ELF file in hexadecimal; bytes 18 and 19 are the processor.
		magic := fields["magic"]
		fit := enabled && strings.Contains(fields["flags"], "F") && strings.Contains(fields["flags"], "C")
		if fit && fields["offset"] == "0" && len(magic) >= 40 && magic[36:40] == fmt.Sprintf("%02x%02x", byte(machine), byte(machine>>8)) {
			return true
		}
	}
	return false
}

// static reports whether the file is a statically linked program.
func static(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// release returns the release of the kernel.
func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// atLeast reports whether a kernel release is at least a version.
func atLeast(release string, major, minor int) bool {
	first, rest, _ := strings.Cut(release, ".")
	second := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))]
	a, err1 := strconv.Atoi(first)
	b, err2 := strconv.Atoi(second)
	return err1 == nil && err2 == nil && (a > major || a == major && b >= minor)
}

// emulate registers an emulator with the kernel if the machine's programs need one. The
// registration is limited to the machine's user namespace. The working directory is the machine's
// root, and the host's files are visible, so the kernel opens the emulator now (F). The emulator
// gets each program as an open file, with the rights from the program's owner and mode (C), which
// sudo needs, and with the name that it was called by (P). See
// Documentation/admin-guide/binfmt-misc.rst of Linux.
func (b *bootSpec) emulate() error {
	if b.Emulator == "" {
		return nil
	}
	where := strings.TrimPrefix(binfmtDir, "/")
	if err := (mount{kind: "binfmt_misc", target: where, flags: noSpecial}).do(); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(where, "register"), []byte(registration(b.Arch, b.Emulator)), 0); err != nil {
		return fmt.Errorf("have %s run programs for %s: %w", b.Emulator, b.Arch, err)
	}
	// The machine must not remove the registration, as systemd-binfmt does when it starts.
	if err := unix.Mount("", where, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|noSpecial, ""); err != nil {
		return fmt.Errorf("protect %s: %w", binfmtDir, err)
	}
	return nil
}

// emulated reports whether the machine's programs are for another processor.
func (b *bootSpec) emulated() bool { return b.Arch != "" && b.Arch != runtime.GOARCH }

// registration returns the line that registers an emulator. It matches the start of 64-bit
// little-endian ELF files that are executables (2) or shared objects (3).
func registration(arch, emulator string) string {
	machine := knownProcessors[arch].machine
	magic := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, byte(machine), byte(machine >> 8)}
	mask := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff}
	return ":bake-" + arch + ":M::" + escaped(magic) + ":" + escaped(mask) + ":" + emulator + ":POCF"
}

func escaped(b []byte) string {
	var text strings.Builder
	for _, c := range b {
		fmt.Fprintf(&text, `\x%02x`, c)
	}
	return text.String()
}
