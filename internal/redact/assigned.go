package redact

import (
	"regexp"
	"strings"

	"bake/internal/lazyregexp"
)

// Values of variables with secret-looking names: name=value, and "name": "value".
var (
	assigned     = lazyregexp.New(`(?i)(?:[\w.-]*(?:password|passwd|passphrase|secret)[\w.-]*|[\w.-]*_pass)=("[^"]*"|'[^']*'|\S+)`)
	assignedJSON = lazyregexp.New(`(?i)["']?(?:[\w.-]*(?:password|passwd|passphrase|secret)[\w.-]*|[\w.-]*_pass)["']?\s*:\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,}'"]+)`)
)

// Assigned returns the values of variables with secret-looking names among the arguments of
// a program: "db_password=…", with or without "-e" or "--extra-vars" before it, and JSON.
// Other flags, such as --vault-password-file=, contain no secrets. An argument may consist
// of several words.
func Assigned(args []string) (values []string) {
	for _, arg := range args {
		for strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "-e") && !strings.HasPrefix(arg, "--extra-vars") {
			_, rest, _ := strings.Cut(arg, " ")
			arg = strings.TrimSpace(rest)
		}
		for _, pattern := range []*regexp.Regexp{assigned.Get(), assignedJSON.Get()} {
			for _, m := range pattern.FindAllStringSubmatch(arg, -1) {
				if value := strings.Trim(m[1], `"'`); value != "" {
					values = append(values, value)
				}
			}
		}
	}
	return values
}
