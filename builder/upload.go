package builder

import (
	"path"
	"sync/atomic"
)

// Upload says whose the files are that are uploaded to some place, and what their
// permissions are. What is empty stays as it is without it.
type Upload struct {
	Pattern       string // of paths on the machine, as [path.Match] has it; what is below them matches too
	Owner, Group  string // name or number
	Mode          string // of files, in octal digits
	DirectoryMode string // of directories, likewise

	used atomic.Bool
}

// Matches reports whether the rule is for a path of the machine.
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

// Used reports whether the rule was for anything yet.
func (u *Upload) Used() bool { return u.used.Load() }
