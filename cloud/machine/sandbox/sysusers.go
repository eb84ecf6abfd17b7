package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sysusersDirs are the directories in which packages and administrators declare system users, see
// sysusers.d(5).
var sysusersDirs = []string{"/etc/sysusers.d", "/run/sysusers.d", "/usr/local/lib/sysusers.d", "/usr/lib/sysusers.d"}

// hasSystemUsers reports whether the machine has all users and groups declared by files in dirs. If
// in doubt, it returns false, so that systemd-sysusers runs.
func hasSystemUsers(dirs []string) bool {
	users, members := map[string]bool{}, map[string][]string{} // members by group
	if eachEntry("/etc/passwd", 7, func(f []string) error { users[f[0]] = true; return nil }) != nil {
		return false
	}
	if eachEntry("/etc/group", 4, func(f []string) error { members[f[0]] = strings.Split(f[3], ","); return nil }) != nil {
		return false
	}
	for _, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(dir, "*.conf")) // the pattern is valid
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return false
			}
			for line := range strings.Lines(string(text)) {
				if !hasSystemUser(strings.Fields(line), users, members) {
					return false
				}
			}
		}
	}
	return true
}

// hasSystemUser is hasSystemUsers for the fields of one line.
func hasSystemUser(fields []string, users map[string]bool, members map[string][]string) bool {
	if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
		return true
	}
	kind, name, id := fields[0], "", ""
	if len(fields) > 1 {
		name = fields[1]
	}
	if len(fields) > 2 {
		id = fields[2]
	}
	switch kind {
	case "u": // implies a group of the same name unless another is given
		return users[name] && (members[name] != nil || strings.Contains(id, ":"))
	case "g":
		return members[name] != nil
	case "m":
		return users[name] && slices.Contains(members[id], name)
	case "r": // a range of ids to assign
		return true
	}
	return false
}
