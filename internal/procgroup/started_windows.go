package procgroup

import (
	"strconv"

	"golang.org/x/sys/windows"
)

// Started tells one process from another that has the same number: it says when the one
// that has it now was started. It is empty if there is none, or the system does not tell.
func Started(pid int) string {
	if at := created(uint32(pid)); at != 0 {
		return strconv.FormatInt(at, 10)
	}
	return ""
}

// created is when a process that runs was started, in nanoseconds; 0 if there is none.
func created(pid uint32) int64 {
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, pid)
	if err != nil {
		return 0
	}
	defer windows.CloseHandle(process) //nolint:errcheck // it was only read
	if state, err := windows.WaitForSingleObject(process, 0); err != nil || state != uint32(windows.WAIT_TIMEOUT) {
		return 0 // it has ended, and somebody still has a handle of it
	}
	var started, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(process, &started, &exited, &kernel, &user); err != nil {
		return 0
	}
	return started.Nanoseconds()
}

// Holds says whether a process of the group that the process pid headed was started with
// this variable, "NAME=value", in its environment. It is false: Windows has no groups, and
// does not tell.
func Holds(int, string) bool { return false }
