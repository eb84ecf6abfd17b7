// Package bytesize parses numbers of bytes as people write them.
package bytesize

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// units are the names of units, in lower case, and their bytes.
var units = []struct {
	name  string
	bytes float64
}{{"", 1}, {"b", 1}, {"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12}, {"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40}}

// Parse parses a number of bytes such as "10GB", "1.5 GiB" or "0".
func Parse(text string) (int64, error) {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit := strings.ToLower(strings.TrimSpace(text[len(number):]))
	n, err := strconv.ParseFloat(number, 64)
	wrong := err != nil || strings.Trim(number, "0123456789.") != ""
	for _, u := range units {
		if u.name == unit && !wrong && n*u.bytes < math.MaxInt64 {
			return int64(n * u.bytes), nil
		}
	}
	return 0, fmt.Errorf("%q is not a size such as 500MB, 10GB or 1.5GiB", text)
}
