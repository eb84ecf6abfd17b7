package procgroup

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// zombie is the state of a process that has ended (SZOMB).
const zombie = 5

// Started distinguishes processes that have had the same number: it returns when the
// current one was started. It is empty if there is none, or if the system does not provide
// it.
func Started(pid int) string {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || info.Proc.P_stat == zombie {
		return ""
	}
	return fmt.Sprintf("%d.%06d", info.Proc.P_starttime.Sec, info.Proc.P_starttime.Usec)
}

// Holds reports whether a process in the process group pid was started with this variable,
// "NAME=value", in its environment. Numbers of groups are reused, so this distinguishes
// remaining processes of a former group from unrelated ones.
func Holds(pid int, variable string) bool {
	members, err := unix.SysctlKinfoProcSlice("kern.proc.pgrp", pid)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(members, func(m unix.KinfoProc) bool {
		if m.Proc.P_stat == zombie {
			return false
		}
		// The number of arguments, the path, the arguments, and then the environment.
		text, err := unix.SysctlRaw("kern.procargs2", int(m.Proc.P_pid))
		return err == nil && bytes.Contains(text, []byte("\x00"+variable+"\x00"))
	})
}
