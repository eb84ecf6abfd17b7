package cloud

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"bake/cloud/wire"
)

// maxCalls is the number of calls that are kept.
const maxCalls = 500

// maxMessage limits the bytes of an error message that are kept: a message may quote the
// caller's input.
const maxMessage = 1 << 10

// Call is a call of the API.
type Call struct {
	Time    time.Time `json:"time"`
	Account string    `json:"account"`
	Region  string    `json:"region"`
	Service string    `json:"service"` // the name used in signatures
	Action  string    `json:"action"`
	Code    string    `json:"code,omitempty"` // of the error, if the call failed
	Message string    `json:"message,omitempty"`
}

// journal keeps the last calls that changed something or failed. It omits reads by clients that
// only display the state (see [Cloud.Looks]).
type journal struct {
	log   *slog.Logger
	tell  func() // called after a call that may have changed something
	mu    sync.Mutex
	calls []Call
}

// of returns a function that records the calls of a service.
func (j *journal) of(service string) func(ctx context.Context, action string, err error) {
	return func(ctx context.Context, action string, err error) {
		caller := wire.CallerFrom(ctx)
		if wire.Reads(action) && (err == nil || caller.Looks) {
			return
		}
		call := Call{Time: time.Now(), Account: caller.Account, Region: caller.Region, Service: service, Action: action}
		if err != nil {
			if _, ok := errors.AsType[*wire.Error](err); !ok {
				j.log.Error("internal error", "service", service, "action", action, "error", err) // unlike the answer, the log may contain paths
			}
			e := wire.AsError(err)
			call.Code, call.Message = e.Code, e.Message
		}
		if len(call.Message) > maxMessage {
			call.Message = strings.ToValidUTF8(call.Message[:maxMessage], "") + "…"
		}
		j.add(call)
		// A watcher reads again when it is notified. Notifying it of a failed read would
		// make an endless loop.
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
