package wire

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Error is an error of the API as its clients see it. A handler returns one to choose the
// service's answer; any other error becomes an InternalError.
type Error struct {
	Code    string
	Message string
	Status  int // HTTP status; 0 means 400
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Errorf returns an [Error] with the status 400.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Message returns the text of err for clients: the message of the [Error] in its tree, or else its
// text without paths of the host.
func Message(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Message
	}
	return WithoutPaths(err)
}

// WithoutPaths returns the text of err without paths of the host. In the cloud's errors, these occur
// only as fields of [fs.PathError], [os.LinkError], [exec.Error] and [net.OpError]. Relative paths,
// such as those within an image, stay.
func WithoutPaths(err error) string {
	text := err.Error()
	var parts []error
	switch e := err.(type) { //nolint:errorlint // each error of the tree is looked at
	case *fs.PathError:
		if filepath.IsAbs(e.Path) {
			return e.Op + ": " + WithoutPaths(e.Err)
		}
		parts = []error{e.Err}
	case *os.LinkError:
		if filepath.IsAbs(e.Old) || filepath.IsAbs(e.New) {
			return e.Op + ": " + WithoutPaths(e.Err)
		}
		parts = []error{e.Err}
	case *exec.Error:
		return fmt.Sprintf("exec %q: %s", filepath.Base(e.Name), WithoutPaths(e.Err))
	case *net.OpError:
		if strings.HasPrefix(e.Net, "unix") {
			return e.Op + " " + e.Net + ": " + WithoutPaths(e.Err)
		}
		parts = []error{e.Err}
	case interface{ Unwrap() error }:
		parts = []error{e.Unwrap()}
	case interface{ Unwrap() []error }:
		parts = e.Unwrap()
	}
	for _, p := range parts {
		if p != nil {
			text = strings.ReplaceAll(text, p.Error(), WithoutPaths(p))
		}
	}
	return text
}

// AsError returns the [Error] in err's tree, or an InternalError.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: "InternalError", Message: "An internal error has occurred: " + WithoutPaths(err), Status: http.StatusInternalServerError}
}

func errUnsigned() *Error {
	return &Error{"MissingAuthenticationToken", "Request is missing Authentication Token", http.StatusForbidden}
}

// HTTPStatus returns the HTTP status of the answer.
func (e *Error) HTTPStatus() int {
	if e.Status == 0 {
		return http.StatusBadRequest
	}
	return e.Status
}
