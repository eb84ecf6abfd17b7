package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// typist is a user at the terminal of a console.
type typist struct {
	t      *testing.T
	tty    *os.File
	output chan []byte
	seen   []byte
	ended  chan int
}

// startConsole runs bake console at a terminal.
func startConsole(t *testing.T, state, dir string) *typist {
	t.Helper()
	tty, slave, err := pty.Open()
	if err != nil {
		t.Skip("there are no terminals here: ", err)
	}
	u := &typist{t: t, tty: tty, output: make(chan []byte, 100), ended: make(chan int, 1)}
	go func() {
		for {
			b := make([]byte, 1024)
			n, err := tty.Read(b)
			if n > 0 {
				u.output <- b[:n]
			}
			if err != nil {
				close(u.output)
				return
			}
		}
	}()
	go func() {
		env := []string{"BAKE_STATE_DIR=" + state, "NO_COLOR=1"}
		code := bake([]string{"bake", "console", filepath.Join(dir, "t.pkr.hcl")}, env, slave, slave, slave)
		slave.Close()
		u.ended <- code
	}()
	t.Cleanup(func() { tty.Close() })
	u.expect("> ")
	return u
}

// expect waits until the terminal shows text after the text that was found last.
func (u *typist) expect(text string) {
	u.t.Helper()
	deadline := time.After(time.Minute)
	for {
		if i := bytes.Index(u.seen, []byte(text)); i >= 0 {
			u.seen = u.seen[i+len(text):]
			return
		}
		select {
		case b, ok := <-u.output:
			if !ok {
				u.t.Fatalf("%q does not come before the end; there is %q", text, u.seen)
			}
			u.seen = append(u.seen, b...)
		case <-deadline:
			u.t.Fatalf("%q does not come; there is %q", text, u.seen)
		}
	}
}

func (u *typist) enter(text string) {
	u.t.Helper()
	if _, err := u.tty.WriteString(text); err != nil {
		u.t.Fatal(err)
	}
}

// ends waits for the end of the console.
func (u *typist) ends() {
	u.t.Helper()
	select {
	case code := <-u.ended:
		if code != 0 {
			u.t.Errorf("exit code %d", code)
		}
	case <-time.After(time.Minute):
		u.t.Fatal("the console does not end")
	}
}

func TestConsoleAtATerminal(t *testing.T) {
	dir, state := t.TempDir(), filepath.Join(t.TempDir(), "state")
	template := "variable \"secret\" {\n  default   = \"hunter2\"\n  sensitive = true\n}\nlocals { name = \"web\" }\n"
	if err := os.WriteFile(filepath.Join(dir, "t.pkr.hcl"), []byte(template), 0o600); err != nil {
		t.Fatal(err)
	}
	u := startConsole(t, state, dir)
	u.enter("upper(local.name)\r")
	u.expect("WEB\r\n> ")
	u.enter("var.secret\r")
	u.expect("<sensitive>\r\n> ")
	u.enter("[\r")
	u.expect("  ")
	u.enter("1, 2]\r")
	u.expect("[\r\n  1,\r\n  2,\r\n]\r\n> ")
	u.enter("local.nmae\r")
	u.expect("Did you mean \"name\"?")
	u.expect("> ")
	u.enter("upper(loc\t") // completed, then discarded
	u.expect("al.name")
	u.enter("\x03")
	u.expect("^C\r\n> ")
	u.enter("[\r")
	u.expect("  ")
	u.enter("\x03") // and so is an incomplete expression
	u.expect("^C\r\n> ")
	u.enter("\"hunter2\" # typed in\r")
	u.expect("> ")
	u.enter(" \"private\"\r")
	u.expect("private\r\n> ")
	u.enter("\x04")
	u.ends()

	path := filepath.Join(state, "console_history")
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "upper(local.name)\nvar.secret\n[\n1, 2]\nlocal.nmae\n[\n"
	if string(kept) != want {
		t.Errorf("the history is %q, want %q", kept, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the history's mode is %v (%v)", info.Mode(), err)
	}

	// The lines are still in the history of the next session.
	u = startConsole(t, state, dir)
	u.enter(strings.Repeat("\x1b[A", 6) + "\r")
	u.expect("WEB\r\n> ")
	u.enter("\x03")
	u.ends()
}
