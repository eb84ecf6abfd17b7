package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// oldChown are system calls that newer architectures lack.
var oldChown = []uint32{unix.SYS_CHOWN, unix.SYS_LCHOWN}
