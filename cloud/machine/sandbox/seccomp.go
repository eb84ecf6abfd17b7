package sandbox

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filterCalls installs a seccomp(2) filter that applies action to the given system calls of the
// host's native architecture and allows all others. It applies to the calling thread and the
// processes and threads that it starts; flags may extend it to other threads or request a
// descriptor.
func filterCalls(calls []uint32, action uint32, flags uintptr) (descriptor int, err error) {
	const arch, number = 4, 0 // offsets in struct seccomp_data
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	equal := func(k uint32, then, otherwise uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: then, Jf: otherwise}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }

	filter := []unix.SockFilter{load(arch), equal(auditArch, 1, 0), answer(unix.SECCOMP_RET_ALLOW), load(number)}
	for i, call := range calls {
		filter = append(filter, equal(call, uint8(len(calls)-i), 0))
	}
	filter = append(filter, answer(unix.SECCOMP_RET_ALLOW), answer(action))

	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return -1, os.NewSyscallError("seccomp", errno)
	}
	return int(r), nil
}
