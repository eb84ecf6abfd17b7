// Package startup changes the files that the user's shells read when they start.
package startup

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bake/internal/wholefile"
)

// Shells are the shells of a user.
type Shells struct {
	Home   string // directory
	Config string // $XDG_CONFIG_HOME; unless it is absolute, .config in Home
	Login  string // $SHELL
}

// file is a startup file of a shell.
type file struct{ shell, path string }

func (s Shells) files() ([]file, error) {
	if s.Home == "" {
		return nil, errors.New("HOME is not set, so the shells' startup files cannot be found; for PowerShell, add this line to the file that $PROFILE names: bake completion powershell | Out-String | Invoke-Expression")
	}
	config := filepath.Join(s.Home, ".config")
	if filepath.IsAbs(s.Config) {
		config = s.Config
	}
	return []file{
		{"bash", filepath.Join(s.Home, ".bashrc")},
		{"zsh", filepath.Join(s.Home, ".zshrc")},
		{"fish", filepath.Join(config, "fish", "config.fish")},
	}, nil
}

// Add makes each shell that has a startup file, and the login shell, run its command when
// it starts. note is the comment after the command. Add returns the files that it has
// changed, also with an error; it does not change files that already have the line.
func (s Shells) Add(note string, commands map[string]string) (changed []string, err error) {
	return s.each(note, commands, func(f file, text []byte, missing bool, line string) error {
		switch {
		case has(text, line), missing && filepath.Base(s.Login) != f.shell:
			return errUnchanged
		case missing:
			return errors.Join(os.MkdirAll(filepath.Dir(f.path), 0o755), os.WriteFile(f.path, []byte(line+"\n"), 0o644))
		case len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")):
			text = append(text, '\n')
		}
		return wholefile.Rewrite(f.path, append(text, line+"\n"...))
	})
}

// Remove undoes Add with the same arguments. It returns the files that it has changed, also
// with an error.
func (s Shells) Remove(note string, commands map[string]string) (changed []string, err error) {
	return s.each(note, commands, func(f file, text []byte, _ bool, line string) error {
		if !has(text, line) {
			return errUnchanged
		}
		var rest strings.Builder
		for l := range strings.Lines(string(text)) {
			if strings.TrimSuffix(l, "\n") != line {
				rest.WriteString(l)
			}
		}
		return wholefile.Rewrite(f.path, []byte(rest.String()))
	})
}

// errUnchanged is the error of a change that is not needed.
var errUnchanged = errors.New("unchanged")

func (s Shells) each(note string, commands map[string]string, change func(f file, text []byte, missing bool, line string) error) (changed []string, err error) {
	files, err := s.files()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f.path)
		missing := errors.Is(err, os.ErrNotExist)
		if err != nil && !missing {
			return changed, err
		}
		err = change(f, text, missing, commands[f.shell]+" # "+note)
		if errors.Is(err, errUnchanged) {
			continue
		}
		if err != nil {
			return changed, err
		}
		changed = append(changed, f.path)
	}
	return changed, nil
}

func has(text []byte, line string) bool {
	return slices.Contains(strings.Split(string(text), "\n"), line)
}
