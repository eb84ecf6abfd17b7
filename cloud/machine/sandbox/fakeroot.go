package sandbox

import (
	"os"

	"golang.org/x/sys/unix"
)

// aptConfig is a configuration that makes apt download as root, since it cannot change to another
// user.
const aptConfig = "/run/bake/apt.conf"

// pretendRoot makes calls that change owners and user ids succeed without effect, for machines with
// a single user id. It applies to this process and its descendants.
func (b *bootSpec) pretendRoot() error {
	if err := os.WriteFile(aptConfig, []byte("APT::Sandbox::User \"root\";\n"), 0o644); err != nil {
		return err
	}
	_ = os.Setenv("APT_CONFIG", aptConfig)
	return pretendIDs()
}

// pretendIDs is the part of pretendRoot that processes need whose environment already has
// APT_CONFIG.
func pretendIDs() error {
	calls := append([]uint32{
		unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID,
		unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS, unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_CAPSET,
	}, oldChown...)
	_, err := filterCalls(calls, unix.SECCOMP_RET_ERRNO, unix.SECCOMP_FILTER_FLAG_TSYNC) // error 0 means success
	return err
}
