package winrmtest

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// Fault disturbs an answer. It returns the writer for the answer, or nil if it has answered
// itself.
type Fault func(s *Server, w http.ResponseWriter) http.ResponseWriter

// Die cuts all connections, and ends everything that runs on the machine.
func Die(s *Server, _ http.ResponseWriter) http.ResponseWriter {
	s.Cut()
	panic(http.ErrAbortHandler)
}

// Say answers with text instead of the regular answer.
func Say(status int, contentType, text string) Fault {
	return func(_ *Server, w http.ResponseWriter) http.ResponseWriter {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
		return nil
	}
}

// Refuse answers with a fault of WS-Management that has a code of Windows.
func Refuse(code, message string) Fault {
	return Say(http.StatusInternalServerError, "application/soap+xml;charset=UTF-8", fault(code, message))
}

// TimedOut is the fault for a request for output when there was none.
var TimedOut = Refuse("2150858793", "The WS-Management service cannot complete the operation within the time specified in OperationTimeout.")

// Gone is the fault for a request about a shell that does not exist.
var Gone = Refuse("2150858843", "The request for the Windows Remote Shell failed because the shell was not found on the server.")

// Slow answers later.
func Slow(by time.Duration) Fault {
	return func(_ *Server, w http.ResponseWriter) http.ResponseWriter {
		time.Sleep(by)
		return w
	}
}

// Endless answers with text that does not end.
func Endless(_ *Server, w http.ResponseWriter) http.ResponseWriter {
	w.Header().Set("Content-Type", "application/soap+xml;charset=UTF-8")
	junk := strings.Repeat("<a>", 1<<16)
	for {
		if _, err := io.WriteString(w, junk); err != nil {
			return nil
		}
	}
}

// Cut sends only half of the answer.
func Cut(_ *Server, w http.ResponseWriter) http.ResponseWriter { return halved{w} }

type halved struct{ http.ResponseWriter }

func (w halved) Write(b []byte) (int, error) {
	w.Header().Set("Content-Length", "1000000")
	return w.ResponseWriter.Write(b[:len(b)/2])
}

func (w halved) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

func (w halved) WriteHeader(int) {}
