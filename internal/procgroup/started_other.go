//go:build !linux && !darwin && !windows

package procgroup

// Started tells one process from another that has the same number: it says when the one
// that has it now was started. It is empty if there is none, or the system does not tell.
func Started(int) string { return "" }

// Holds says whether a process of the group that the process pid headed was started with
// this variable, "NAME=value", in its environment. It is false if the system does not tell.
func Holds(int, string) bool { return false }
