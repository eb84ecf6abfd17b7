package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"syscall"

	"bake/internal/debuglog"
	"bake/internal/redact"
	"bake/step"
)

// debugLog is the log for developers, which the environment asks for.
type debugLog struct {
	*slog.Logger
	secrets  *redact.Set // never in it; shared with the template that is loaded
	onStream bool        // it goes to standard error
	on       bool
	file     io.Closer // nil if it goes to no file
}

// openLog opens the log that env asks for: a file named by BAKE_LOG_PATH, or
// standard error if BAKE_LOG is set to anything but 0. Packer's names for the two
// count where bake's are empty. The caller closes it.
func openLog(env environ, stderr io.Writer) (*debugLog, error) {
	l := &debugLog{Logger: slog.New(slog.DiscardHandler), secrets: new(redact.Set)}
	var out io.Writer
	if path := env.either("BAKE_LOG_PATH", "PACKER_LOG_PATH"); path != "" {
		f, err := createLog(path)
		if err != nil {
			return nil, fmt.Errorf("the log file set by BAKE_LOG_PATH or PACKER_LOG_PATH: %w", err)
		}
		out, l.file = f, f
	} else if on := env.either("BAKE_LOG", "PACKER_LOG"); on != "" && on != "0" {
		out, l.onStream = stderr, true
	} else {
		return l, nil
	}
	l.on = true
	text := slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})
	l.Logger = slog.New(debuglog.Redacted(text, l.secrets.RedactMessage))
	return l, nil
}

// createLog creates or empties a file. Opening a named pipe fails, instead of waiting, if no process
// reads from it.
func createLog(path string) (*os.File, error) {
	flags := os.O_CREATE | os.O_TRUNC | os.O_WRONLY
	if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		flags |= syscall.O_NONBLOCK
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if errors.Is(err, syscall.ENXIO) {
		return nil, fmt.Errorf("%s is a named pipe that no process reads: start its reader first, or name a file", path)
	}
	return f, err
}

// either returns the value of the first of names that is not empty.
func (e environ) either(names ...string) string {
	for _, n := range names {
		if v := e.get(n); v != "" {
			return v
		}
	}
	return ""
}

func (l *debugLog) close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// Handle implements [ui.Display]. It omits the output of scripts and messages to the user
// if the log is mixed with them.
func (l *debugLog) Handle(e step.Event) {
	switch e.Kind {
	case step.Progressed, step.Partial:
		return
	case step.Say, step.Output, step.ErrOutput, step.Warning:
		if l.onStream {
			return
		}
	}
	var args []any
	add := func(name, value string) {
		if value != "" {
			args = append(args, name, value)
		}
	}
	add("build", e.Build)
	add("step", e.Step)
	add("source", e.Source)
	add("text", e.Text)
	if e.Resource != nil {
		add("resource", e.Resource.String())
	}
	if e.Elapsed > 0 {
		args = append(args, "took", e.Elapsed)
	}
	if e.Error != nil {
		args = append(args, "error", e.Error)
	}
	l.Debug(string(e.Kind), args...)
}

// logged returns a context whose log is l.
func (l *debugLog) logged(ctx context.Context) context.Context { return debuglog.With(ctx, l.Logger) }
