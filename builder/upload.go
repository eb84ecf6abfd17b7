package builder

import (
	"path"
	"sync/atomic"
)

// Upload is a rule for the owner and the mode of uploaded files. Empty fields change nothing.
type Upload struct {
	Pattern       string // for paths on the machine, see [path.Match]; paths below a match match too
	Owner, Group  string // name or number
	Mode          string // of files, in octal digits
	DirectoryMode string // of directories, likewise

	used atomic.Bool
}

// Matches reports whether the rule applies to a path on the machine.
func (u *Upload) Matches(p string) bool {
	for p = path.Clean(p); ; p = path.Dir(p) {
		if ok, err := path.Match(u.Pattern, p); ok && err == nil {
			u.used.Store(true)
			return true
		}
		if up := path.Dir(p); up == p || up == "." {
			return false
		}
	}
}

// Used reports whether the rule has applied to any path.
func (u *Upload) Used() bool { return u.used.Load() }
