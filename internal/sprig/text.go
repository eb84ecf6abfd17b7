package sprig

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash/adler32"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

func texts() map[string]any {
	return map[string]any{
		"abbrev":     func(width int, s string) string { return abbreviate(s, 0, width) },
		"abbrevboth": func(left, right int, s string) string { return abbreviate(s, left, right) },
		"trunc":      trunc,
		"trim":       strings.TrimSpace,
		"upper":      strings.ToUpper,
		"lower":      strings.ToLower,
		"title":      title,
		"untitle":    untitle,
		"substr":     substr,
		"repeat":     repeat,
		"trimall":    trimAll,
		"trimAll":    trimAll,
		"trimSuffix": func(a, b string) string { return strings.TrimSuffix(b, a) },
		"trimPrefix": func(a, b string) string { return strings.TrimPrefix(b, a) },
		"nospace":    func(s string) string { return strings.Join(strings.FieldsFunc(s, unicode.IsSpace), "") },
		"initials":   initials,
		"swapcase":   swapcase,
		"snakecase":  func(s string) string { return strings.Join(words(s, strings.ToLower), "_") },
		"kebabcase":  func(s string) string { return strings.Join(words(s, strings.ToLower), "-") },
		"camelcase":  func(s string) string { return strings.Join(words(s, title), "") },
		"wrap":       func(width int, s string) string { return wrap(width, "\n", false, s) },
		"wrapWith":   func(width int, sep, s string) string { return wrap(width, sep, true, s) },
		"contains":   func(part, s string) bool { return strings.Contains(s, part) },
		"hasPrefix":  func(part, s string) bool { return strings.HasPrefix(s, part) },
		"hasSuffix":  func(part, s string) bool { return strings.HasSuffix(s, part) },
		"quote":      func(v ...any) string { return eachNotNil(v, func(x any) string { return strconv.Quote(text(x)) }) },
		"squote":     func(v ...any) string { return eachNotNil(v, func(x any) string { return "'" + text(x) + "'" }) },
		"cat":        func(v ...any) string { return eachNotNil(v, text) },
		"indent":     indent,
		"nindent":    func(spaces int, s string) (string, error) { s, err := indent(spaces, s); return "\n" + s, err },
		"replace":    replace,
		"plural": func(one, many string, count int) string {
			if count == 1 {
				return one
			}
			return many
		},
		"toString":      text,
		"split":         func(sep, s string) map[string]any { return numbered(strings.Split(s, sep)) },
		"splitn":        func(sep string, n int, s string) map[string]any { return numbered(strings.SplitN(s, sep, n)) },
		"splitList":     func(sep, s string) []string { return strings.Split(s, sep) },
		"duration":      duration,
		"semverCompare": semverCompare,
	}
}

// text returns a value in printed form.
func text(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return fmt.Sprint(v)
}

func eachNotNil(values []any, show func(any) string) string {
	var out []string
	for _, v := range values {
		if v != nil {
			out = append(out, show(v))
		}
	}
	return strings.Join(out, " ")
}

// abbreviate shortens s to width bytes, of which left are skipped before an ellipsis.
func abbreviate(s string, left, width int) string {
	if width < 4 || left > 0 && width < 7 || len(s) <= width {
		return s
	}
	left = min(max(left, 0), len(s))
	if len(s)-left < width-3 {
		left = len(s) - (width - 3)
	}
	switch {
	case left <= 4:
		return s[:width-3] + "..."
	case left+width-3 < len(s):
		return "..." + abbreviate(s[left:], 0, width-3)
	}
	return "..." + s[len(s)-(width-3):]
}

func trunc(n int, s string) string {
	switch {
	case n < 0 && len(s)+n > 0:
		return s[len(s)+n:]
	case n >= 0 && len(s) > n:
		return s[:n]
	}
	return s
}

// title capitalizes each word.
func title(s string) string {
	previous := ' '
	return strings.Map(func(r rune) rune {
		first := !unicode.IsLetter(previous) && !unicode.IsDigit(previous) && previous != '_' && previous != '\''
		previous = r
		if first {
			return unicode.ToTitle(r)
		}
		return r
	}, s)
}

func untitle(s string) string {
	previous := ' '
	return strings.Map(func(r rune) rune {
		first := unicode.IsSpace(previous)
		previous = r
		if first {
			return unicode.ToLower(r)
		}
		return r
	}, s)
}

func substr(start, end int, s string) (string, error) {
	if start < 0 {
		start = 0
	} else if end < 0 || end > len(s) {
		end = len(s)
	}
	if start > end || end > len(s) {
		return "", fmt.Errorf("a text of %d bytes has no part from %d to %d", len(s), start, end)
	}
	return s[start:end], nil
}

func repeat(n int, s string) (string, error) {
	if n < 0 {
		return "", fmt.Errorf("a text cannot be repeated %d times", n)
	}
	if len(s) > 0 && n > maxMade/len(s) {
		return "", errTooLarge
	}
	return strings.Repeat(s, n), nil
}

func trimAll(cutset, s string) string { return strings.Trim(s, cutset) }

func initials(s string) string {
	var out []rune
	for _, word := range strings.Fields(s) {
		r, _ := utf8.DecodeRuneInString(word)
		out = append(out, r)
	}
	return string(out)
}

// swapcase converts lower case to upper case and upper case to lower case; a lower-case
// letter at the start of a word becomes title case.
func swapcase(s string) string {
	previous := ' '
	return strings.Map(func(r rune) rune {
		first := unicode.IsSpace(previous)
		previous = r
		switch {
		case unicode.IsUpper(r), unicode.IsTitle(r):
			return unicode.ToLower(r)
		case unicode.IsLower(r) && first:
			return unicode.ToTitle(r)
		case unicode.IsLower(r):
			return unicode.ToUpper(r)
		}
		return r
	}, s)
}

// words splits a name in any style into words and applies change to each. A word begins
// after a character that is neither a letter nor a digit, before an upper-case letter that
// follows a lower-case one, and before the last of several upper-case letters if a
// lower-case one follows.
func words(s string, change func(string) string) []string {
	var out []string
	runes := []rune(s)
	start := -1
	end := func(i int) {
		if start >= 0 {
			out = append(out, change(strings.ToLower(string(runes[start:i]))))
		}
		start = -1
	}
	for i, r := range runes {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			end(i)
			continue
		}
		if start >= 0 && unicode.IsUpper(r) {
			small := i+1 < len(runes) && unicode.IsLower(runes[i+1])
			if !unicode.IsUpper(runes[i-1]) || small {
				end(i)
			}
		}
		if start < 0 {
			start = i
		}
	}
	end(len(runes))
	return out
}

// wrap breaks lines at spaces so that they are no longer than width; longer words are left
// whole, or broken.
func wrap(width int, sep string, long bool, s string) string {
	width = max(width, 1)
	var out strings.Builder
	for {
		s = strings.TrimLeft(s, " ")
		if utf8.RuneCountInString(s) <= width {
			return out.String() + s
		}
		runes := []rune(s)
		at := strings.LastIndex(string(runes[:width+1]), " ")
		if at < 0 && long {
			at = len(string(runes[:width]))
		} else if at < 0 {
			if at = strings.Index(s, " "); at < 0 {
				return out.String() + s
			}
		}
		out.WriteString(s[:at] + sep)
		s = s[at:]
		if out.Len() > maxMade {
			return out.String()
		}
	}
}

func indent(spaces int, s string) (string, error) {
	if spaces < 0 || spaces > maxMade/(strings.Count(s, "\n")+1) {
		return "", fmt.Errorf("a text cannot be indented by %d spaces", spaces)
	}
	pad := strings.Repeat(" ", spaces)
	return pad + strings.ReplaceAll(s, "\n", "\n"+pad), nil
}

func replace(old, new, s string) (string, error) {
	if len(s)+strings.Count(s, old)*len(new) > 2*maxMade {
		return "", errTooLarge
	}
	return strings.ReplaceAll(s, old, new), nil
}

// numbered returns the parts under the names _0, _1 and so on.
func numbered(parts []string) map[string]any {
	out := make(map[string]any, len(parts))
	for i, p := range parts {
		out["_"+strconv.Itoa(i)] = p
	}
	return out
}

func duration(seconds any) string {
	n, err := strconv.ParseInt(fmt.Sprint(seconds), 10, 64)
	if err != nil {
		return "0s"
	}
	return (time.Duration(n) * time.Second).String()
}

func expand(s string, env map[string]string) string {
	return os.Expand(s, func(name string) string { return env[name] })
}

func encodings() map[string]any {
	return map[string]any{
		"sha1sum":    func(s string) string { sum := sha1.Sum([]byte(s)); return hex.EncodeToString(sum[:]) },
		"sha256sum":  func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) },
		"sha512sum":  func(s string) string { sum := sha512.Sum512([]byte(s)); return hex.EncodeToString(sum[:]) },
		"adler32sum": func(s string) string { return strconv.FormatUint(uint64(adler32.Checksum([]byte(s))), 10) },
		"b64enc":     func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"b32enc":     func(s string) string { return base32.StdEncoding.EncodeToString([]byte(s)) },
		"b64dec":     func(s string) string { return decoded(base64.StdEncoding.DecodeString(s)) },
		"b32dec":     func(s string) string { return decoded(base32.StdEncoding.DecodeString(s)) },
		"urlParse":   urlParse,
		"urlJoin":    urlJoin,
	}
}

// decoded returns the decoded text or, as in sprig, the text of the error.
func decoded(b []byte, err error) string {
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func urlParse(s string) (map[string]any, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"scheme": u.Scheme, "host": u.Host, "hostname": u.Hostname(), "path": u.Path, "query": u.RawQuery,
		"opaque": u.Opaque, "fragment": u.Fragment, "userinfo": u.User.String(),
	}, nil
}

func urlJoin(parts map[string]any) (string, error) {
	part := func(name string) string {
		s, _ := parts[name].(string)
		return s
	}
	u := url.URL{Scheme: part("scheme"), Host: part("host"), Path: part("path"), RawQuery: part("query"), Opaque: part("opaque"), Fragment: part("fragment")}
	if info := part("userinfo"); info != "" {
		with, err := url.Parse("x://" + info + "@host")
		if err != nil {
			return "", err
		}
		u.User = with.User
	}
	return u.String(), nil
}

func regexps() map[string]any {
	out := map[string]any{
		"regexQuoteMeta": regexp.QuoteMeta,
	}
	both := func(name string, f any) {
		out[name] = f
		out["must"+strings.ToUpper(name[:1])+name[1:]] = f
	}
	both("regexMatch", func(re, s string) (bool, error) { return regexp.MatchString(re, s) })
	both("regexFind", func(re, s string) (string, error) {
		r, err := regexp.Compile(re)
		if err != nil {
			return "", err
		}
		return r.FindString(s), nil
	})
	both("regexFindAll", func(re, s string, n int) ([]string, error) {
		r, err := regexp.Compile(re)
		if err != nil {
			return nil, err
		}
		return r.FindAllString(s, n), nil
	})
	both("regexSplit", func(re, s string, n int) ([]string, error) {
		r, err := regexp.Compile(re)
		if err != nil {
			return nil, err
		}
		return r.Split(s, n), nil
	})
	both("regexReplaceAll", func(re, s, with string) (string, error) {
		return replaceAll(re, s, with, (*regexp.Regexp).ReplaceAllString)
	})
	both("regexReplaceAllLiteral", func(re, s, with string) (string, error) {
		return replaceAll(re, s, with, (*regexp.Regexp).ReplaceAllLiteralString)
	})
	return out
}

func replaceAll(re, s, with string, f func(*regexp.Regexp, string, string) string) (string, error) {
	r, err := regexp.Compile(re)
	if err != nil {
		return "", err
	}
	// A replacement can insert the whole text at each match.
	if matches := len(r.FindAllStringIndex(s, -1)); matches*(len(with)+strings.Count(with, "$")*len(s)) > 16*maxMade {
		return "", errTooLarge
	}
	return f(r, s, with), nil
}

func paths() map[string]any {
	out := map[string]any{}
	for name, f := range pathFunctions() {
		out[name] = f
		out["os"+strings.ToUpper(name[:1])+name[1:]] = f // paths on the machine, which have slashes
	}
	return out
}
