package procgroup

import (
	"strconv"

	"golang.org/x/sys/windows"
)

// Started tells one process from another that has the same number: it says when the one
// that has it now was started. It is empty if there is none, or the system does not tell.
func Started(pid int) string {
	process, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION|windows.SYNCHRONIZE, false, uint32(pid))
	if err != nil {
		return ""
	}
	defer windows.CloseHandle(process) //nolint:errcheck // it was only read
	if state, err := windows.WaitForSingleObject(process, 0); err != nil || state != uint32(windows.WAIT_TIMEOUT) {
		return "" // it has ended, and somebody still has a handle of it
	}
	var created, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(process, &created, &exited, &kernel, &user); err != nil {
		return ""
	}
	return strconv.FormatInt(created.Nanoseconds(), 10)
}

// Holds says whether a process of the group that the process pid headed was started with
// this variable, "NAME=value", in its environment. It is false: Windows has no groups, and
// does not tell.
func Holds(int, string) bool { return false }
