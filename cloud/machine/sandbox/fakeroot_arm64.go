package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// oldChown are calls that this architecture does not have.
var oldChown []uint32
