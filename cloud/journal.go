package cloud

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"bake/cloud/wire"
)

// maxCalls is how many calls are remembered.
const maxCalls = 500

// maxMessage is how many bytes of an error's message are remembered: it may quote what
// the caller sent.
const maxMessage = 1 << 10

// Call is a call of the API.
type Call struct {
	Time    time.Time `json:"time"`
	Account string    `json:"account"`
	Region  string    `json:"region"`
	Service string    `json:"service"` // as signatures name it
	Action  string    `json:"action"`
	Code    string    `json:"code,omitempty"` // of the error, if it failed
	Message string    `json:"message,omitempty"`
}

// journal remembers the last calls that changed something or failed, but for those that read
// for who only looks.
type journal struct {
	tell  func() // of a new call
	mu    sync.Mutex
	calls []Call
}

// of returns what hears of the calls of a service.
func (j *journal) of(service string) func(ctx context.Context, action string, err error) {
	return func(ctx context.Context, action string, err error) {
		caller := wire.CallerFrom(ctx)
		if wire.Reads(action) && (err == nil || caller.Looks) {
			return
		}
		call := Call{Time: time.Now(), Account: caller.Account, Region: caller.Region, Service: service, Action: action}
		if err != nil {
			call.Code, call.Message = "InternalError", err.Error()
			if e, ok := errors.AsType[*wire.Error](err); ok {
				call.Code, call.Message = e.Code, e.Message
			}
		}
		if len(call.Message) > maxMessage {
			call.Message = strings.ToValidUTF8(call.Message[:maxMessage], "") + "…"
		}
		j.add(call)
		// Who watches looks again by calls that read. If one that failed were told of, the
		// two would go round.
		if !wire.Reads(action) {
			j.tell()
		}
	}
}

func (j *journal) add(call Call) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.calls) == maxCalls {
		j.calls = slices.Delete(j.calls, 0, 1)
	}
	j.calls = append(j.calls, call)
}

func (j *journal) last() []Call {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.calls)
}
