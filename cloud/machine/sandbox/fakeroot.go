package sandbox

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aptConfig makes apt download as root: it cannot become another user.
const aptConfig = "/run/bake/apt.conf"

// pretendRoot lets a machine with one user id believe that it has them all:
// changes of owner and of user id succeed and do nothing. It holds for this
// process and all that it starts.
func (b *bootSpec) pretendRoot() error {
	if err := os.WriteFile(aptConfig, []byte("APT::Sandbox::User \"root\";\n"), 0o644); err != nil {
		return err
	}
	_ = os.Setenv("APT_CONFIG", aptConfig)

	const (
		allow   = 0x7fff0000 // SECCOMP_RET_ALLOW
		succeed = 0x00050000 // SECCOMP_RET_ERRNO with 0
		arch    = 4          // offsets in struct seccomp_data
		number  = 0
	)
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	equal := func(k uint32, then, otherwise uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: then, Jf: otherwise}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }

	calls := append([]uint32{
		unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID,
		unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS, unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_CAPSET,
	}, oldChown...)
	filter := []unix.SockFilter{load(arch), equal(auditArch, 1, 0), answer(allow), load(number)}
	for i, call := range calls {
		filter = append(filter, equal(call, uint8(len(calls)-i), 0))
	}
	filter = append(filter, answer(allow), answer(succeed))

	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}
