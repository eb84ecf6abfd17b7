package script

import (
	"path/filepath"
	"strings"
)

// cmdLine is a command line for cmd.exe, whose words are quoted where blanks would
// part them, and the paths of files where what is special to cmd.exe would.
func cmdLine(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		path := filepath.IsAbs(arg) || drive().MatchString(arg)
		if arg == "" || strings.ContainsAny(arg, " \t") || path && strings.ContainsAny(arg, "&()[]{}^=;!'+,`~@") {
			words[i] = `"` + arg + `"`
		}
	}
	return strings.Join(words, " ")
}
