package script

import (
	"path/filepath"
	"strings"
)

// cmdLine returns a command line for cmd.exe. It quotes words with blanks, and paths with
// characters that are special to cmd.exe.
func cmdLine(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		path := filepath.IsAbs(arg) || drive.Get().MatchString(arg)
		if arg == "" || strings.ContainsAny(arg, " \t") || path && strings.ContainsAny(arg, "&()[]{}^=;!'+,`~@") {
			words[i] = `"` + arg + `"`
		}
	}
	return strings.Join(words, " ")
}
