package s3

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"bake/cloud/wire"
)

var sha256Hex = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{64}$`) })

// Payload returns what the signature of a request has in the place of its body,
// and the body as the service is to read it: it fails at its end where it is not
// what was signed.
func Payload(r *http.Request) (hash string, body io.Reader, err error) {
	hash = r.Header.Get("X-Amz-Content-Sha256")
	switch {
	case hash == "UNSIGNED-PAYLOAD":
		return hash, r.Body, nil
	case hash == "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
		return hash, &chunks{r: bufio.NewReader(r.Body)}, nil
	case sha256Hex().MatchString(hash):
		return hash, &signed{r.Body, sha256.New(), hash}, nil
	case strings.HasPrefix(hash, "STREAMING-"):
		return "", nil, &wire.Error{Code: "NotImplemented", Status: http.StatusNotImplemented,
			Message: "The embedded cloud's S3 does not read bodies whose chunks are signed (" + hash + ")."}
	case hash == "":
		return "", nil, wire.Errorf("MissingSecurityHeader", "Your request was missing a required header: x-amz-content-sha256")
	}
	return "", nil, wire.Errorf("InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER or a valid sha256 value.")
}

// signed is a body with a SHA-256 that it must have.
type signed struct {
	r    io.Reader
	sum  hash.Hash
	want string
}

func (s *signed) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	s.sum.Write(b[:n])
	if err == io.EOF && hex.EncodeToString(s.sum.Sum(nil)) != s.want {
		return n, wire.Errorf("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
	}
	return n, err
}

// chunks reads the content of a body in the encoding aws-chunked: chunks, each
// after its length, and headers at the end, whose checksums are not looked at.
type chunks struct {
	r    *bufio.Reader
	left int64 // of the current chunk
	end  bool
}

func (c *chunks) Read(b []byte) (int, error) {
	for c.left == 0 {
		if c.end {
			return 0, io.EOF
		}
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n, err := c.r.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	if c.left == 0 && err == nil {
		_, err = c.line() // what ends the chunk
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// next begins the next chunk, or ends the body.
func (c *chunks) next() error {
	line, err := c.line()
	if err != nil {
		return err
	}
	size, _, _ := strings.Cut(line, ";")
	if c.left, err = strconv.ParseInt(size, 16, 63); err != nil || c.left < 0 {
		return wire.Errorf("InvalidRequest", "The body is not in the encoding aws-chunked: %q is not the length of a chunk.", size)
	}
	c.end = c.left == 0
	for c.end && line != "" {
		if line, err = c.line(); errors.Is(err, io.ErrUnexpectedEOF) {
			return nil // the last headers may end with the body
		} else if err != nil {
			return err
		}
	}
	return nil
}

// line reads a line, without its end.
func (c *chunks) line() (string, error) {
	line, err := c.r.ReadSlice('\n')
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return strings.TrimRight(string(line), "\r\n"), err
}
