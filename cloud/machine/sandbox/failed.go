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

// unitsFailed contains a file for each service that has failed, until the service is started again
// or its state is reset. The file contains the result and the status, see systemd.exec(5).
const unitsFailed = "/run/bake/failed"

// unitFailure describes how a service failed.
type unitFailure struct {
	result string // systemd's name, such as exit-code
	status int    // exit code or signal number, or 0
}

func (u *unit) failedFile() string { return filepath.Join(unitsFailed, filepath.Base(u.name)) }

// fail records that the service has failed.
func (u *unit) fail(f unitFailure) error {
	if err := os.MkdirAll(unitsFailed, 0o755); err != nil {
		return err
	}
	return os.WriteFile(u.failedFile(), fmt.Appendf(nil, "%s %d", f.result, f.status), 0o644)
}

// failed returns how the service failed; ok is false if it has not.
func (u *unit) failed() (f unitFailure, ok bool) {
	text, err := os.ReadFile(u.failedFile())
	if err != nil {
		return unitFailure{}, false
	}
	_, err = fmt.Sscan(string(text), &f.result, &f.status)
	return f, err == nil
}

// forget resets the failed state of the service.
func (u *unit) forget() error {
	err := os.Remove(u.failedFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// failedUnits returns the names of the failed services.
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

// failureOf returns the failure for an error of starting a service.
func failureOf(err error) unitFailure {
	if status, ok := statusOf(err); ok {
		if status.Signaled() {
			return unitFailure{"signal", int(status.Signal())}
		}
		return unitFailure{"exit-code", status.ExitStatus()}
	}
	switch {
	case errors.Is(err, errNotReady):
		return unitFailure{result: "timeout"}
	case errors.Is(err, errEndedEarly):
		return unitFailure{result: "protocol"}
	}
	return unitFailure{result: "resources"}
}

// statusOf returns the exit status in an error, if it has one.
func statusOf(err error) (status syscall.WaitStatus, ok bool) {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if ok {
		status, ok = exit.Sys().(syscall.WaitStatus)
	}
	return status, ok
}

// failureOfEnd returns the failure for the exit status of a process of the service, or nil if it
// counts as success. A daemon may also end by the signal that stops it.
func (u *unit) failureOfEnd(status unix.WaitStatus, daemon bool) *unitFailure {
	clean := u.cleanEnds(daemon)
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

// cleanEnds returns the ends that count as success, see SuccessExitStatus in systemd.service(5).
func (u *unit) cleanEnds(daemon bool) ends {
	clean := ends{codes: []int{0}}
	if daemon {
		clean.signals = []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE}
	}
	for _, setting := range u.values["Service.SuccessExitStatus"] {
		for word := range strings.FieldsSeq(setting) {
			if code, err := strconv.Atoi(word); err == nil {
				clean.codes = append(clean.codes, code)
			} else if code, ok := exitCodes[word]; ok {
				clean.codes = append(clean.codes, code)
			} else if signal, err := signalNamed(word); err == nil {
				clean.signals = append(clean.signals, signal)
			}
		}
	}
	return clean
}

// exitCodes maps the names in systemd.exec(5) to the exit codes of the LSB and of sysexits.h.
var exitCodes = map[string]int{
	"SUCCESS": 0, "FAILURE": 1, "INVALIDARGUMENT": 2, "NOTIMPLEMENTED": 3, "NOPERMISSION": 4, "NOTINSTALLED": 5, "NOTCONFIGURED": 6, "NOTRUNNING": 7,
	"USAGE": 64, "DATAERR": 65, "NOINPUT": 66, "NOUSER": 67, "NOHOST": 68, "UNAVAILABLE": 69, "SOFTWARE": 70, "OSERR": 71, "OSFILE": 72,
	"CANTCREAT": 73, "IOERR": 74, "TEMPFAIL": 75, "PROTOCOL": 76, "NOPERM": 77, "CONFIG": 78,
}
