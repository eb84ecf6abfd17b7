package procgroup

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Started tells one process from another that has the same number: it says when the one
// that has it now was started. It is empty if there is none, or the system does not tell.
func Started(pid int) string {
	fields := stat(pid)
	if len(fields) < 20 || fields[0] == "Z" { // a zombie has ended
		return ""
	}
	return fields[19]
}

// stat are the fields of /proc/PID/stat from the third on: state, parent, group and so on.
func stat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	// The name, in brackets, may hold anything. After it come the fields from the third on.
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// Holds says whether a process of the group that the process pid headed was started with
// this variable, "NAME=value", in its environment. Since a group keeps its number, that
// tells what has been left of it from what has nothing to do with it.
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
