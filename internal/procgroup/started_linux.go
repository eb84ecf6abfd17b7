package procgroup

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Started distinguishes processes that have had the same number: it returns when the
// current one was started. It is empty if there is none, or if the system does not provide
// it.
func Started(pid int) string {
	fields := stat(pid)
	if len(fields) < 20 || fields[0] == "Z" { // a zombie has ended
		return ""
	}
	return fields[19]
}

// stat returns the fields of /proc/PID/stat from the third on: state, parent, group and so on.
func stat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	// The name, in brackets, may hold anything. After it come the fields from the third on.
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// Holds reports whether a process in the process group pid was started with this variable,
// "NAME=value", in its environment. Numbers of groups are reused, so this distinguishes
// remaining processes of a former group from unrelated ones.
func Holds(pid int, variable string) bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		member, err := strconv.Atoi(e.Name())
		if err != nil {
			return false
		}
		if fields := stat(member); len(fields) < 3 || fields[2] != strconv.Itoa(pid) {
			return false
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", member))
		return err == nil && slices.Contains(strings.Split(string(env), "\x00"), variable)
	})
}
