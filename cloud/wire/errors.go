package wire

import (
	"errors"
	"fmt"
	"net/http"
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

// AsError returns the [Error] in err's tree, or an InternalError.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: "InternalError", Message: "An internal error has occurred: " + err.Error(), Status: http.StatusInternalServerError}
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
