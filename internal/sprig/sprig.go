// Package sprig implements the text functions of the library sprig
// (https://masterminds.github.io/sprig/), which templates of goss, Helm and others use,
// except for functions that are not deterministic or use more than their arguments.
package sprig

import (
	"errors"
	"fmt"
	"maps"
	"strings"
)

// maxMade is the maximum size of what a function makes from arguments that are only
// numbers: bytes of a text or elements of a list.
const maxMade = 1 << 20

var errTooLarge = fmt.Errorf("the result has more than %d bytes or elements", maxMade)

// Functions returns the functions by name, each a Go function that returns a value, or a
// value and an error. Unsupported functions return an error with the reason. env holds the
// variables for env and expandenv.
func Functions(env map[string]string) map[string]any {
	all := map[string]any{
		"fail":      func(msg string) (string, error) { return "", errors.New(msg) },
		"hello":     func() string { return "Hello!" },
		"env":       func(name string) string { return env[name] },
		"expandenv": func(s string) string { return expand(s, env) },
	}
	for _, more := range []map[string]any{texts(), encodings(), regexps(), numbers(), lists(), dicts(), defaults(), paths(), refused()} {
		maps.Copy(all, more)
	}
	return all
}

// refused returns the functions of sprig that are not supported.
func refused() map[string]any {
	out := map[string]any{}
	for reason, names := range map[string]string{
		"its result differs each time, so that two runs could not be compared": "now ago randAlphaNum randAlpha randAscii randNumeric randInt randBytes shuffle uuidv4 bcrypt htpasswd",
		"dates are shown in the time zone of this host":                        "date date_in_zone date_modify dateInZone dateModify durationRound htmlDate htmlDateInZone must_date_modify mustDateModify mustToDate toDate unixEpoch",
		"it generates keys, and rendered text must not contain secrets":        "genPrivateKey derivePassword buildCustomCert genCA genCAWithKey genSelfSignedCert genSelfSignedCertWithKey genSignedCert genSignedCertWithKey encryptAES decryptAES",
		"it asks the network": "getHostByName",
		"its result has methods, which cannot be called here; use semverCompare": "semver",
	} {
		for _, name := range strings.Fields(names) {
			out[name] = func(...any) (any, error) { return nil, fmt.Errorf("%s cannot be used here: %s", name, reason) }
		}
	}
	return out
}
