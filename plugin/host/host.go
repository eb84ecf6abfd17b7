// Package host runs the components of Packer's plugin binaries as bake's own.
//
// A plugin is a separate program, which runs with all rights of the user. It is started
// only after its checksum was verified. Its messages are limited in size, and shown like
// the output of a script: without secrets.
package host

import (
	"context"
	"io"
	"path/filepath"
	"runtime"
	"slices"

	"bake/internal/envvar"
)

// Options are the settings for running plugins.
type Options struct {
	Dirs []string // directories of installed plugins, see [Dirs]
	Env  []string // the plugins' environment, "NAME=value"

	// Trust, if not nil, is called before a binary is run for the first time, after its checksum
	// was verified. Its error refuses the plugin.
	Trust func(Binary) error

	// Releases excludes versions that end in "-dev".
	Releases bool

	// Keeper is the command that runs a plugin and cancels it if this process ends first. The
	// plugin's command line is appended. If empty, plugins are run directly.
	Keeper []string

	// Warn, if not nil, tells the user which call a plugin has not answered.
	Warn func(ctx context.Context, format string, args ...any)

	// Terminal opens the terminal where the user answers a plugin's questions. If nil, questions
	// fail.
	Terminal func() (io.ReadCloser, error)
}

// Dirs returns the directories in which Packer and bake search for plugins, according to env. New
// plugins are installed in the first. It returns none if env names no home directory.
func Dirs(env []string) []string { return dirs(env, runtime.GOOS, isDir) }

func dirs(env []string, system string, exists func(string) bool) []string {
	get := func(name string) string { return envvar.Get(env, name) }
	list := slices.DeleteFunc(filepath.SplitList(get("PACKER_PLUGIN_PATH")), func(dir string) bool {
		return dir == "" // never run programs from the working directory
	})
	if len(list) > 0 {
		return list
	}
	if dir := get("PACKER_CONFIG_DIR"); dir != "" {
		return []string{filepath.Join(dir, ".packer.d", "plugins")}
	}
	if system == "windows" {
		if dir := get("APPDATA"); dir != "" {
			return []string{filepath.Join(dir, "packer.d", "plugins")}
		}
		return nil
	}
	home := envvar.Home(get)
	if dir := filepath.Join(home, ".packer.d"); home != "" && exists(dir) {
		return []string{filepath.Join(dir, "plugins")}
	}
	if dir := get("XDG_CONFIG_HOME"); dir != "" {
		return []string{filepath.Join(dir, "packer", "plugins")}
	}
	if home == "" {
		return nil
	}
	return []string{filepath.Join(home, ".config", "packer", "plugins")}
}
