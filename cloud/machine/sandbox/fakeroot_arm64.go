package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// oldChown are system calls that this architecture lacks.
var oldChown []uint32
