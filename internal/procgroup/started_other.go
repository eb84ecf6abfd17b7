//go:build !linux && !darwin && !windows

package procgroup

// Started distinguishes processes that have had the same number: it returns when the
// current one was started. It is empty if there is none, or if the system does not provide
// it.
func Started(int) string { return "" }

// Holds reports whether a process in the process group pid was started with this variable,
// "NAME=value", in its environment. It is false if the system does not provide this.
func Holds(int, string) bool { return false }
