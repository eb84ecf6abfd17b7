package sandbox

import (
	"os"

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
	return pretendIDs()
}

// pretendIDs is pretendRoot for what has the environment already.
func pretendIDs() error {
	calls := append([]uint32{
		unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID,
		unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS, unix.SYS_SETFSUID, unix.SYS_SETFSGID, unix.SYS_CAPSET,
	}, oldChown...)
	_, err := filterCalls(calls, unix.SECCOMP_RET_ERRNO, unix.SECCOMP_FILTER_FLAG_TSYNC) // with 0, which is success
	return err
}
