package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
)

// replace runs another program with the given environment and the streams of this process,
// and ends this process with the exit code of that program. Ctrl-C reaches both.
func replace(path string, args, env []string) error {
	signal.Ignore(os.Interrupt)
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		return exitStatus(ended.ExitCode())
	}
	if err != nil {
		return fmt.Errorf("%s cannot be started: %w", path, err)
	}
	return exitStatus(0)
}
