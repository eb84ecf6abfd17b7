package procgroup

import (
	"strconv"

	"golang.org/x/sys/windows"
)

// Started distinguishes processes that have had the same number: it returns when the
// current one was started. It is empty if there is none, or if the system does not provide
// it.
func Started(pid int) string {
	if at := created(uint32(pid)); at != 0 {
		return strconv.FormatInt(at, 10)
	}
	return ""
}

// created returns when a running process was started, in nanoseconds; 0 if there is
// none.
func created(pid uint32) int64 {
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, pid)
	if err != nil {
		return 0
	}
	defer windows.CloseHandle(process) //nolint:errcheck // it was only read
	if state, err := windows.WaitForSingleObject(process, 0); err != nil || state != uint32(windows.WAIT_TIMEOUT) {
		return 0 // it has ended, but a handle to it is still open
	}
	var started, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(process, &started, &exited, &kernel, &user); err != nil {
		return 0
	}
	return started.Nanoseconds()
}

// Holds reports whether a process in the process group pid was started with this variable,
// "NAME=value", in its environment. It is always false: Windows has no process groups.
func Holds(int, string) bool { return false }
