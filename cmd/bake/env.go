package main

import (
	"bytes"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"golang.org/x/term"

	"bake/ui"
)

// environ is the environment of the program, as "NAME=value"; the last wins.
type environ []string

// get returns the value of name, empty if it is not set.
func (e environ) get(name string) string {
	for i := len(e) - 1; i >= 0; i-- {
		if k, v, _ := strings.Cut(e[i], "="); k == name {
			return v
		}
	}
	return ""
}

// colors says whether the environment allows colours at all.
func (e environ) colors() bool {
	return e.get("NO_COLOR") == "" && e.get("PACKER_NO_COLOR") == ""
}

// stateDir is where ledgers and the logs of runs are.
func (e environ) stateDir() (string, error) {
	return e.dir("BAKE_STATE_DIR", "XDG_STATE_HOME", ".local/state", "bake")
}

// cloudDir is where the local cloud keeps its images and machines.
func (e environ) cloudDir() (string, error) {
	return e.dir("BAKE_CLOUD_DIR", "XDG_DATA_HOME", ".local/share", "bake/cloud")
}

// dir is the directory that the variable own names, or else name below the one
// that the variable base names, or else below fallback in the home directory.
func (e environ) dir(own, base, fallback, name string) (string, error) {
	if d := e.get(own); d != "" {
		return filepath.Abs(d)
	}
	if d := e.get(base); filepath.IsAbs(d) {
		return filepath.Join(d, name), nil
	}
	if home := e.get("HOME"); home != "" {
		return filepath.Join(home, fallback, name), nil
	}
	if u, err := user.Current(); err == nil && u.HomeDir != "" { // a system service has no HOME
		return filepath.Join(u.HomeDir, fallback, name), nil
	}
	return "", errors.New("cannot keep state: neither " + own + " nor HOME is set; set " + own + " to a directory")
}

// ledgerDir is where the ledgers of runs are that own something.
func ledgerDir(state string) string { return filepath.Join(state, "ledgers") }

// runsDir is where the logs of runs are.
func runsDir(state string) string { return filepath.Join(state, "runs") }

// isTerminal says whether stream, an input or an output, is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func diagnosticsText(files map[string]*hcl.File, diags hcl.Diagnostics) string {
	var b bytes.Buffer
	ui.Diagnostics(&b, files, diags, 80, false)
	return strings.TrimRight(b.String(), "\n")
}
