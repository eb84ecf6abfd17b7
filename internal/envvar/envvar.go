// Package envvar finds variables in an environment, a list of "NAME=value".
package envvar

import (
	"runtime"
	"slices"
	"strings"
)

// Get returns the value of a variable, empty if env does not have it. Of several, the
// last one counts. On Windows names are the same in any case.
func Get(env []string, name string) string { return get(env, name, runtime.GOOS == "windows") }

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
