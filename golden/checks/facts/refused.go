package facts

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Refused returns why no machine can answer a question, or "".
func Refused(q Question) string {
	subject := q.subject()
	if subject.ask == nil {
		return fmt.Sprintf("%q is nothing that a machine is asked about", q.Kind)
	}
	for name, value := range q.Options {
		if value != "" && !slices.Contains(subject.options, name) {
			return fmt.Sprintf("the option %s of %s is not supported", name, q.Kind)
		}
		if strings.ContainsRune(value, 0) {
			return "its " + name + " has a NUL byte"
		}
	}
	switch {
	case q.Key == "":
		return "it has no name"
	case strings.ContainsRune(q.Key, 0):
		return "its name has a NUL byte"
	case len(q.Key) > maxLine:
		return fmt.Sprintf("it is longer than %d kB", maxLine>>10)
	}
	_, err := q.timeout(0)
	if err == nil {
		err = q.invalid()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// invalid returns what is wrong with the key or its options.
func (q Question) invalid() error {
	switch q.Kind {
	case "addr":
		_, _, _, err := endpoint(q.Key)
		return err
	case "dns":
		_, _, err := q.record()
		return err
	case "http":
		if _, err := url.Parse(q.Options["proxy"]); err != nil {
			return fmt.Errorf("proxy: %w", err)
		}
		_, err := q.request(context.Background())
		return err
	case "kernel-param":
		if slices.Contains(strings.Split(q.Key, "/"), "..") {
			return errors.New("it is no name of a kernel parameter")
		}
	case "port":
		_, err := socket(q.Key)
		return err
	}
	return nil
}

// socket returns the key of a port with its protocol, such as tcp:22.
func socket(key string) (string, error) {
	protocol, port, ok := strings.Cut(key, ":")
	if !ok {
		protocol, port = "tcp", key
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || !slices.Contains([]string{"tcp", "tcp6", "udp", "udp6"}, protocol) {
		return "", fmt.Errorf("%q is not a port such as 22, tcp6:443 or udp:53", key)
	}
	return protocol + ":" + strconv.FormatUint(n, 10), nil
}
