// Package age parses ages such as 30d.
package age

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Age is a duration above 0 that people write with days: 30d, 24h, or 1d12h.
type Age time.Duration

// errInvalid is the error of a text that is not an age.
var errInvalid = errors.New("give an age above 0 in days, hours, minutes or seconds, such as 24h, 7d or 1d12h")

// Parse parses an age. Its error shows what an age looks like.
func Parse(text string) (Age, error) {
	var days time.Duration
	rest := text
	if n, after, ok := strings.Cut(text, "d"); ok {
		count, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return 0, errInvalid
		}
		days, rest = time.Duration(count)*24*time.Hour, after
	}
	d := days
	if rest != "" {
		more, err := time.ParseDuration(rest)
		if err != nil {
			return 0, errInvalid
		}
		d += more
	}
	if d <= 0 || strings.ContainsAny(rest, "-+") {
		return 0, errInvalid
	}
	return Age(d), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *Age) UnmarshalText(b []byte) (err error) {
	*a, err = Parse(string(b))
	return err
}

// String returns the age with its days.
func (a Age) String() string {
	const day = Age(24 * time.Hour)
	switch {
	case a == 0:
		return ""
	case a%day == 0:
		return strconv.FormatInt(int64(a/day), 10) + "d"
	}
	return time.Duration(a).String()
}
