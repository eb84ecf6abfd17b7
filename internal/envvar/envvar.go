// Package envvar finds variables in an environment, a list of "NAME=value".
package envvar

import (
	"runtime"
	"slices"
	"strings"
)

// Get returns the value of a variable; empty if it is not set. If it is set several
// times, the last one counts. On Windows, the case of names does not matter.
func Get(env []string, name string) string { return get(env, name, runtime.GOOS == "windows") }

// Split separates the named variables of an environment from the rest.
func Split(env []string, names ...string) (taken, rest []string) {
	return split(env, names, runtime.GOOS == "windows")
}

func split(env, names []string, anyCase bool) (taken, rest []string) {
	for _, entry := range env {
		n, _, _ := strings.Cut(entry, "=")
		if slices.ContainsFunc(names, func(name string) bool { return n == name || anyCase && strings.EqualFold(n, name) }) {
			taken = append(taken, entry)
		} else {
			rest = append(rest, entry)
		}
	}
	return taken, rest
}

func get(env []string, name string, anyCase bool) string {
	for _, entry := range slices.Backward(env) {
		if n, value, ok := strings.Cut(entry, "="); ok && (n == name || anyCase && strings.EqualFold(n, name)) {
			return value
		}
	}
	return ""
}

// Home returns the home directory that an environment names, empty if it names none.
func Home(get func(name string) string) string { return home(get, runtime.GOOS) }

func home(get func(string) string, system string) string {
	if dir := get("HOME"); dir != "" || system != "windows" {
		return dir
	}
	return get("USERPROFILE")
}
