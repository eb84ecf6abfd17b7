package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// sealedFD is the lowest descriptor of the sealed program. It is above the descriptors that
// children inherit, which would replace it.
const sealedFD = 1500

// lowestSealed returns sealedFD or, if this process may have at most limit descriptors, one that it
// can have. Some of those above may be in use.
func lowestSealed(limit uint64) int { return int(min(sealedFD, limit/4*3)) }

// sealedProgram returns the path of a copy of this program that cannot be changed any more.
// Children that come into contact with machines run it, because the root of a machine could reach
// the file that its processes run (see CVE-2019-5736). The copy is in memory, one for the whole
// process.
func sealedProgram() (path string, err error) {
	fd, err := sealProgram()
	if err == nil {
		// The file may belong to the machines' root, which may have made it unreadable.
		err = unix.Fchmod(fd, 0o555)
	}
	if err != nil {
		return "", fmt.Errorf("copy this program into memory: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), nil
}

var sealProgram = sync.OnceValues(func() (sealed int, err error) {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return -1, err
	}
	defer in.Close()
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("bake", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("bake", flags)
	}
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	copied := os.NewFile(uintptr(fd), "bake")
	defer copied.Close()
	if _, err := io.Copy(copied, in); err != nil {
		return -1, err
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	_, err = unix.FcntlInt(copied.Fd(), unix.F_ADD_SEALS, seals|unix.F_SEAL_EXEC)
	if errors.Is(err, unix.EINVAL) {
		_, err = unix.FcntlInt(copied.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return -1, os.NewSyscallError("getrlimit", err)
	}
	// The descriptor stays open for the life of the process.
	sealed, err = unix.FcntlInt(copied.Fd(), unix.F_DUPFD_CLOEXEC, lowestSealed(limit.Cur))
	return sealed, os.NewSyscallError("fcntl", err)
})

// bindProgram makes this program available in the machine, as the builtin init's systemctl, and as
// mount in machines with volumes. The file is mounted through an overlay without an upper layer, so
// that neither the machine's root nor the file's owner in the machine can change it or its mode. If
// the path does not lead to the running program, for example because the file was replaced,
// bindProgram makes a copy. The working directory is the machine's root.
func (b *bootSpec) bindProgram(target string) error {
	if len(b.Command) > 0 {
		return nil
	}
	if b.Executable != "" && !strings.HasSuffix(b.Executable, " (deleted)") && b.showProgram(target) == nil {
		return nil
	}
	return copyFile("/proc/self/exe", target, 0o755)
}

func (b *bootSpec) showProgram(target string) (err error) {
	// An overlay without an upper layer needs two lower ones.
	const shown, empty = "run/bake/shown", "run/bake/empty"
	for _, dir := range []string{shown, empty} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.Remove(dir)) }()
	}
	if err := (overlay{lower: []string{filepath.Dir(b.Executable), empty}}).mount(shown, b.OldMount); err != nil {
		return err
	}
	err = bind(filepath.Join(shown, filepath.Base(b.Executable)), target)
	return errors.Join(err, unix.Unmount(shown, unix.MNT_DETACH))
}
