// Package onhost records the processes and temporary directories of a step on this host in
// the ledger of its run. If bake is killed, a sweep ends and deletes them.
package onhost

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"bake/internal/procgroup"
	"bake/step"
)

// Prefix is the prefix of the kinds of resources of a host, for [step.Destroyers].
const Prefix = "host"

const (
	process   = Prefix + ":process"
	directory = Prefix + ":directory"
)

// temporary is the prefix of the directories' names. Nothing else is ever deleted.
const temporary = "bake-"

// TempDir creates a directory, accessible only to this user, in parent or, if that is empty, in the
// default directory for temporary files. Its name begins with "bake-" and name. The caller must
// call remove, which deletes it.
func TempDir(s *step.Scope, parent, name string) (path string, remove func() error, err error) {
	if parent == "" {
		parent = os.TempDir()
	}
	if parent, err = filepath.Abs(parent); err != nil {
		return "", nil, err
	}
	path = filepath.Join(parent, temporary+name+"-"+rand.Text()[:12])
	e, err := intend(s, step.Resource{Kind: directory, Key: path})
	if err != nil {
		return "", nil, err
	}
	if err = os.Mkdir(path, 0o700); err != nil {
		return "", nil, errors.Join(err, e.gone())
	}
	remove = func() error {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		return e.gone()
	}
	return path, remove, e.created(path)
}

// runVariable identifies the run to all processes that it starts. It is in the environment of the
// scope.
const runVariable = "PACKER_RUN_UUID="

// Run runs a command, which must have a context and the environment of the run, to completion, like
// [procgroup.Run].
func Run(s *step.Scope, cmd *exec.Cmd) error {
	e, err := intend(s, step.Resource{
		Kind: process, Key: fmt.Sprintf("%s/%s/%s", s.Run.ID, s.Build, rand.Text()),
		With: map[string]string{"command": filepath.Base(cmd.Path), "run": s.Run.ID},
	})
	if err != nil {
		return err
	}
	if err := procgroup.Start(cmd); err != nil {
		return errors.Join(err, e.gone())
	}
	recorded := e.created(fmt.Sprintf("%d@%s", cmd.Process.Pid, procgroup.Started(cmd.Process.Pid)))
	if err := cmd.Wait(); err != nil {
		_ = e.gone() // the command's error matters more
		return err
	}
	return errors.Join(recorded, e.gone())
}

// entry is a resource in the ledger of a run. It belongs to no build: the call that created it
// releases it.
type entry struct {
	ledger step.Ledger
	key    string
}

func intend(s *step.Scope, r step.Resource) (*entry, error) {
	if s.Ledger == nil {
		return nil, nil
	}
	return &entry{s.Ledger, r.Key}, s.Ledger.Intend(r)
}

func (e *entry) created(id string) error {
	if e == nil {
		return nil
	}
	return e.ledger.Created(e.key, id)
}

func (e *entry) gone() error {
	if e == nil {
		return nil
	}
	return e.ledger.Gone(e.key)
}

// Destroy implements [step.Destroyer] for what a killed run has left on this host.
func Destroy(_ context.Context, r step.Resource) error {
	switch r.Kind {
	case directory:
		if !filepath.IsAbs(r.Key) || !strings.HasPrefix(filepath.Base(r.Key), temporary) {
			return fmt.Errorf("%s is not a temporary directory of bake", r.Key)
		}
		return os.RemoveAll(r.Key)
	case process:
		return end(r)
	}
	return fmt.Errorf("bake does not know how to delete a resource of kind %q", r.Kind)
}

// end kills a process and its descendants, or the remaining descendants.
func end(r step.Resource) error {
	number, started, _ := strings.Cut(r.ID, "@")
	pid, err := strconv.Atoi(number)
	if err != nil || pid <= 1 || started == "" {
		return nil // it was never started
	}
	if run := r.With["run"]; procgroup.Started(pid) != started && (run == "" || !procgroup.Holds(pid, runVariable+run)) {
		return nil // it has ended without descendants
	}
	if err := procgroup.Kill(pid); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending %s: %w", r, err)
	}
	return nil
}
