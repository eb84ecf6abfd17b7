package ansible

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"bake/internal/envvar"
	"bake/internal/lazyregexp"
)

// configured returns the value of an option in the section ssh_connection of the user's
// ansible.cfg, which bake's command line would override; "" if there is none.
func configured(env []string, option string) string {
	text, err := os.ReadFile(configFile(env))
	if err != nil {
		return ""
	}
	return iniValue(string(text), "ssh_connection", option)
}

// configFile returns the ansible.cfg that Ansible reads: the first that exists of four
// candidates.
func configFile(env []string) string {
	get := func(name string) string { return envvar.Get(env, name) }
	home := envvar.Home(get)
	if named := expanded(get("ANSIBLE_CONFIG"), env); named != "" {
		if info, err := os.Stat(named); err == nil && info.IsDir() {
			named = filepath.Join(named, "ansible.cfg")
		}
		if _, err := os.Stat(named); err == nil {
			return named
		}
	}
	// Ansible ignores a configuration in a world-writable directory.
	if info, err := os.Stat("."); err == nil && info.Mode().Perm()&0o002 == 0 {
		if _, err := os.Stat("ansible.cfg"); err == nil {
			return "ansible.cfg"
		}
	}
	if home != "" {
		if own := filepath.Join(home, ".ansible.cfg"); exists(own) {
			return own
		}
	}
	return "/etc/ansible/ansible.cfg"
}

// expanded expands variables and the home directory of a user in a path, like Ansible.
// Unknown ones are not changed.
func expanded(path string, env []string) string {
	path = variable.Get().ReplaceAllStringFunc(path, func(ref string) string {
		name := strings.Trim(ref, "${}")
		for _, pair := range env {
			if strings.HasPrefix(pair, name+"=") {
				return envvar.Get(env, name)
			}
		}
		return ref
	})
	name, rest, _ := strings.Cut(path, "/")
	if !strings.HasPrefix(name, "~") {
		return path
	}
	home := envvar.Home(func(name string) string { return envvar.Get(env, name) })
	if name != "~" {
		who, err := user.Lookup(name[1:])
		if err != nil {
			return path
		}
		home = who.HomeDir
	}
	if home == "" {
		return path
	}
	return filepath.Join(home, rest)
}

// variable is a reference to a variable in a path.
var variable = lazyregexp.New(`\$\w+|\$\{[^}]*\}`)

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// iniValue returns the value of an option as Python's configparser reads it, without
// surrounding quotes and without comments after ";", as in Ansible.
func iniValue(text, section, option string) string {
	in, on := false, false
	var lines []string
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		if i := inlineComment(line); i >= 0 {
			line = line[:i]
			trimmed = strings.TrimSpace(line)
		}
		switch {
		case on && (line[0] == ' ' || line[0] == '\t'):
			lines = append(lines, trimmed)
			continue
		case trimmed[0] == '[' && strings.ContainsRune(trimmed, ']'):
			in, on = trimmed[1:strings.IndexByte(trimmed, ']')] == section, false
			continue
		}
		i := strings.IndexAny(trimmed, "=:")
		if on = in && i >= 0 && strings.EqualFold(strings.TrimSpace(trimmed[:max(i, 0)]), option); on {
			lines = []string{strings.TrimSpace(trimmed[i+1:])} // the last one counts
		}
	}
	value := strings.TrimSpace(strings.Join(lines, "\n"))
	if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		value = value[1 : n-1]
	}
	return value
}

// inlineComment returns the index at which a comment begins after other text, or -1 if
// there is none.
func inlineComment(line string) int {
	for i := 1; i < len(line); i++ {
		if line[i] == ';' && (line[i-1] == ' ' || line[i-1] == '\t') {
			return i
		}
	}
	return -1
}
