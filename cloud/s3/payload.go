package s3

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"

	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

var sha256Hex = lazyregexp.New(`^[0-9a-f]{64}$`)

// Payload returns the value that a request's signature has for the body, and a reader of
// the body's content. If the signature covers the content, the reader fails at the end if
// the content does not match.
func Payload(r *http.Request) (hash string, body io.Reader, err error) {
	hash = r.Header.Get("X-Amz-Content-Sha256")
	switch {
	case hash == "UNSIGNED-PAYLOAD":
		return hash, r.Body, nil
	case hash == "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
		return hash, &chunks{r: bufio.NewReader(r.Body)}, nil
	case sha256Hex.Get().MatchString(hash):
		return hash, &signed{r.Body, sha256.New(), hash}, nil
	case strings.HasPrefix(hash, "STREAMING-"):
		return "", nil, &wire.Error{Code: "NotImplemented", Status: http.StatusNotImplemented,
			Message: "The embedded cloud's S3 does not support bodies with signed chunks (" + hash + ")."}
	case hash == "":
		return "", nil, wire.Errorf("MissingSecurityHeader", "Your request was missing a required header: x-amz-content-sha256")
	}
	return "", nil, wire.Errorf("InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER or a valid sha256 value.")
}

// signed is a body that must have the SHA-256 want.
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

// chunks reads the content of a body in the aws-chunked encoding: chunks, each after its
// length, and trailing headers, whose checksums are not verified.
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
		_, err = c.line() // the line end after the chunk
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
			return nil // the trailing headers may end with the body
		} else if err != nil {
			return err
		}
	}
	return nil
}

// line reads a line and returns it without its line end.
func (c *chunks) line() (string, error) {
	line, err := c.r.ReadSlice('\n')
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return strings.TrimRight(string(line), "\r\n"), err
}
