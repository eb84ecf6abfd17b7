package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// unitsFailed has a file for each service that has failed, until it is started again or
// forgotten: the result and the status, see systemd.exec(5).
const unitsFailed = "/run/bake/failed"

// unitFailure is how a service failed.
type unitFailure struct {
	result string // systemd's word, such as exit-code
	status int    // the code, or the number of the signal, or 0
}

func (u *unit) failedFile() string { return filepath.Join(unitsFailed, filepath.Base(u.name)) }

// fail notes that the service has failed.
func (u *unit) fail(f unitFailure) error {
	if err := os.MkdirAll(unitsFailed, 0o755); err != nil {
		return err
	}
	return os.WriteFile(u.failedFile(), fmt.Appendf(nil, "%s %d", f.result, f.status), 0o644)
}

// failed is how the service failed, if that is what it did last.
func (u *unit) failed() (f unitFailure, ok bool) {
	text, err := os.ReadFile(u.failedFile())
	if err != nil {
		return unitFailure{}, false
	}
	_, err = fmt.Sscan(string(text), &f.result, &f.status)
	return f, err == nil
}

// forget makes the service one that has not failed.
func (u *unit) forget() error {
	err := os.Remove(u.failedFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// failedUnits are the names of those that have failed.
func failedUnits() ([]string, error) {
	entries, err := os.ReadDir(unitsFailed)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// failureOf is the failure that an error of a start is.
func failureOf(err error) unitFailure {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok {
			if status.Signaled() {
				return unitFailure{"signal", int(status.Signal())}
			}
			return unitFailure{"exit-code", status.ExitStatus()}
		}
	}
	if errors.Is(err, errNotReady) {
		return unitFailure{result: "timeout"}
	}
	return unitFailure{result: "resources"}
}

// failureOfEnd is the failure that the end of the service's main process is, or nil for an end in
// order.
func (u *unit) failureOfEnd(status unix.WaitStatus) *unitFailure {
	clean := u.cleanEnds()
	switch {
	case status.Signaled() && !slices.Contains(clean.signals, status.Signal()):
		return &unitFailure{"signal", int(status.Signal())}
	case status.Exited() && !slices.Contains(clean.codes, status.ExitStatus()):
		return &unitFailure{"exit-code", status.ExitStatus()}
	}
	return nil
}

type ends struct {
	codes   []int
	signals []syscall.Signal
}

// cleanEnds are those that count as success, see SuccessExitStatus in systemd.service(5).
func (u *unit) cleanEnds() ends {
	clean := ends{[]int{0}, []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE}}
	for _, setting := range u.values["Service.SuccessExitStatus"] {
		for word := range strings.FieldsSeq(setting) {
			if code, err := strconv.Atoi(word); err == nil {
				clean.codes = append(clean.codes, code)
			} else if signal := unix.SignalNum(word); signal != 0 {
				clean.signals = append(clean.signals, signal)
			}
		}
	}
	return clean
}
