package procgroup

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// zombie is the state of a process that has ended (SZOMB).
const zombie = 5

// Started tells one process from another that has the same number: it says when the one
// that has it now was started. It is empty if there is none, or the system does not tell.
func Started(pid int) string {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || info.Proc.P_stat == zombie {
		return ""
	}
	return fmt.Sprintf("%d.%06d", info.Proc.P_starttime.Sec, info.Proc.P_starttime.Usec)
}

// Holds says whether a process of the group that the process pid headed was started with
// this variable, "NAME=value", in its environment. Since a group keeps its number, that
// tells what has been left of it from what has nothing to do with it.
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
