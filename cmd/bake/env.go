package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"bake/internal/bytesize"
	"bake/internal/envvar"
	"bake/internal/settings"
	"bake/run"
	"bake/ui"
)

// environ is the environment of the program, as "NAME=value"; the last wins.
type environ []string

// get returns the value of name, empty if it is not set.
func (e environ) get(name string) string {
	return envvar.Get(e, name)
}

// colors reports whether the environment permits colors.
func (e environ) colors() bool {
	return e.get("NO_COLOR") == "" && e.get("PACKER_NO_COLOR") == ""
}

// stateDir is where ledgers and the logs of runs are.
func (e environ) stateDir() (string, error) {
	return e.dir("BAKE_STATE_DIR", customs(runtime.GOOS).state, "bake")
}

// cloudDir is where the local cloud keeps its images and machines.
func (e environ) cloudDir() (string, error) {
	return e.dir("BAKE_CLOUD_DIR", customs(runtime.GOOS).data, "bake/cloud")
}

// place is where programs keep things of one kind for a user: in the directory that
// the variable names, or else in that one of the home directory, which the variable
// home names.
type place struct{ variable, inHome, home string }

// customs returns where programs on a system store persistent files. On macOS these are
// the places of other command-line tools, such as Packer, and not those of applications.
func customs(system string) (of struct{ state, data, config place }) {
	if system == "windows" {
		of.config = place{"APPDATA", "AppData/Roaming", "USERPROFILE"}
		of.state = place{"LOCALAPPDATA", "AppData/Local", "USERPROFILE"}
		of.data = of.state
		return of
	}
	of.state = place{"XDG_STATE_HOME", ".local/state", "HOME"}
	of.data = place{"XDG_DATA_HOME", ".local/share", "HOME"}
	of.config = place{"XDG_CONFIG_HOME", ".config", "HOME"}
	return of
}

// dir returns the directory that the variable own names, or else name at that place.
func (e environ) dir(own string, at place, name string) (string, error) {
	if d := e.get(own); d != "" {
		return filepath.Abs(d)
	}
	if d := e.get(at.variable); filepath.IsAbs(d) {
		return filepath.Join(d, name), nil
	}
	if home := e.get(at.home); home != "" {
		return filepath.Join(home, at.inHome, name), nil
	}
	if u, err := user.Current(); err == nil && u.HomeDir != "" { // a system service has no HOME
		return filepath.Join(u.HomeDir, at.inHome, name), nil
	}
	return "", errors.New("cannot keep state: neither " + own + " nor " + at.home + " is set; set " + own + " to a directory")
}

// configVariable names the file of settings.
const configVariable = "BAKE_CONFIG"

// configure adds the settings of the user's file to the environment. Variables that are set
// already take precedence.
func (p *program) configure() error {
	name, err := p.env.dir(configVariable, customs(runtime.GOOS).config, filepath.Join("bake", "config.hcl"))
	if err != nil {
		return nil // without a home there is no file
	}
	added, files, diags := settings.Load(name, p.env.get(configVariable) != "", envvar.Home(p.env.get))
	if diags.HasErrors() {
		return &templateError{Files: files, Diags: diags}
	}
	p.env = append(environ(added), p.env...)
	return nil
}

// state is [environ.stateDir] for callers that use the contents.
func (e environ) state() (run.State, error) {
	dir, err := e.stateDir()
	return run.State(dir), err
}

func diagnosticsText(files map[string]*hcl.File, diags hcl.Diagnostics) string {
	var b bytes.Buffer
	ui.Diagnostics(&b, files, diags, 80, false)
	return strings.TrimRight(b.String(), "\n")
}

// cacheLimitVariable sets how large the cache of machines may be, if no flag does.
const cacheLimitVariable = "BAKE_CACHE_LIMIT"

// cacheLimit returns the size limit of the cache of machines after a build, in bytes; 0 if
// none is set. flag is 0 if it is not set.
func (e environ) cacheLimit(flag bytesFlag) (int64, error) {
	text := e.get(cacheLimitVariable)
	if flag > 0 || text == "" {
		return int64(flag), nil
	}
	n, err := bytesize.Parse(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", cacheLimitVariable, err)
	}
	return n, nil
}

// bytesFlag is a flag whose value is a number of bytes.
type bytesFlag int64

func (b *bytesFlag) Type() string { return "size" }

func (b *bytesFlag) String() string {
	if *b == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*b), 10)
}

func (b *bytesFlag) Set(text string) error {
	n, err := bytesize.Parse(text)
	*b = bytesFlag(n)
	return err
}
