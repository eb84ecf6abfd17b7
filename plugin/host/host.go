// Package host runs the components of Packer's plugin binaries as bake's own.
//
// A plugin is a program of its own, which does whatever it likes with the rights of
// the user. It is started only after its checksum was compared. What it says is
// bounded, and shown like what a script says: without secrets.
package host

import (
	"io"
	"path/filepath"
	"runtime"
	"slices"

	"bake/internal/envvar"
)

// Options are what plugins run with.
type Options struct {
	Dirs []string // where plugins are installed, see [Dirs]
	Env  []string // their environment, "NAME=value"

	// Trust is asked before a binary is run for the first time, once its checksum is
	// known to be that beside it. Its error refuses the plugin. It may be nil.
	Trust func(Binary) error

	// Releases leaves out versions that end in "-dev".
	Releases bool

	// Keeper is the command that runs a plugin, whose command line follows it, and
	// cancels it when this process ends first. Empty: plugins are run directly.
	Keeper []string

	// Terminal opens what the user answers a plugin's questions at. Nil: nobody answers.
	Terminal func() (io.ReadCloser, error)
}

// Dirs are the directories in which Packer and bake look for plugins, as env says. New
// ones are installed in the first. There is none if env names no home directory.
func Dirs(env []string) []string { return dirs(env, runtime.GOOS, isDir) }

func dirs(env []string, system string, exists func(string) bool) []string {
	get := func(name string) string { return envvar.Get(env, name) }
	list := slices.DeleteFunc(filepath.SplitList(get("PACKER_PLUGIN_PATH")), func(dir string) bool {
		return dir == "" // nothing is run because it is in the working directory
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
