package wire

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// Caller identifies who makes a request, and where.
type Caller struct {
	Account   string // 12 digits
	Region    string
	AccessKey string

	// The session whose credentials signed the request; empty if the account's own
	// credentials did.
	SessionARN string
	SessionID  string

	Host string // host and port at which the caller reached the service

	// Looks reports whether the caller only displays the state and polls for it. Fault
	// rules do not apply to what it reads.
	Looks bool
}

// Reads reports whether an action changes nothing.
func Reads(action string) bool {
	for _, verb := range []string{"Describe", "Get", "List"} {
		if strings.HasPrefix(action, verb) {
			return true
		}
	}
	return false
}

// Principal returns the caller's ARN and unique id: those of the session or, without one,
// of the account's root user.
func (c Caller) Principal() (arn, id string) {
	if c.SessionARN != "" {
		return c.SessionARN, c.SessionID
	}
	return "arn:aws:iam::" + c.Account + ":root", c.Account
}

type callerKey struct{}

// WithCaller returns a context that carries the caller of a request.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns the caller of the request that ctx belongs to.
func CallerFrom(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// Service answers requests for the operations of a model.
type Service struct {
	Model *Model

	// Before, if set, is called with every decoded request before its action. The action
	// gets the returned context; an error becomes the answer. The context may be nil if
	// there is an error.
	Before func(ctx context.Context, action string, input any) (context.Context, error)

	// After, if set, is called after each action, with the error that the client gets, if
	// any.
	After func(ctx context.Context, action string, err error)

	// Unsigned are the actions that callers without an account may request.
	Unsigned []string

	actions Actions
}

// Actions maps the names of actions to their implementations.
type Actions map[string]Action

// Action implements one action.
type Action struct {
	input  func() any // returns a new input struct
	answer func(ctx context.Context, input any) (output any, err error)
}

// Answer makes an Action from a method. In and Out are pointers to the SDK's ActionInput
// and ActionOutput. The compiler emits a generic function over pointers only once, not
// once for each action, unless the function is inlined.
//
//go:noinline
func Answer[In, Out any](method func(context.Context, In) (Out, error)) Action {
	return Action{
		input:  func() any { return reflect.New(reflect.TypeFor[In]().Elem()).Interface() },
		answer: func(ctx context.Context, input any) (any, error) { return method(ctx, input.(In)) },
	}
}

// New returns a service that answers the operations of m with actions. Both must have the
// same names.
func New(m *Model, actions Actions) (*Service, error) {
	for name := range m.Operations {
		action, ok := actions[name]
		if !ok {
			return nil, fmt.Errorf("wire: %s: there is no implementation of the action %s", m.Service, name)
		}
		if t := reflect.TypeOf(action.input()).Elem().Name(); t != name+"Input" {
			return nil, fmt.Errorf("wire: %s: the implementation of the action %s takes %s", m.Service, name, t)
		}
	}
	for name := range actions {
		if _, ok := m.Operations[name]; !ok {
			return nil, fmt.Errorf("wire: %s: the model has no action %s: regenerate it with genmodel", m.Service, name)
		}
	}
	return &Service{Model: m, actions: actions}, nil
}

// IsUnsigned reports whether a request asks for an action that needs no signature.
func (s *Service) IsUnsigned(r *http.Request, body []byte) bool {
	action, _, err := s.read(r, body)
	return err == nil && slices.Contains(s.Unsigned, action)
}

// Serve answers a request. body is its body, already read, and ctx carries its caller.
// Callers without an account are only allowed the Unsigned actions.
func (s *Service) Serve(ctx context.Context, w http.ResponseWriter, r *http.Request, body []byte) {
	id := NewRequestID()
	ctx, answer, err := s.answer(ctx, id, r, body)
	if delivery, _ := ctx.Value(deliveryKey{}).(Delivery); errors.Is(err, ErrLost) || err != nil && delivery != Delivered {
		panic(http.ErrAbortHandler) // closes the connection
	}
	if err != nil {
		s.WriteError(w, id, err)
		return
	}
	Deliver(ctx, w, func(w http.ResponseWriter) { s.write(w, http.StatusOK, id, answer) })
}

// ErrLost is an error of [Service.Before]: the connection is closed without an answer, as
// if the request had been lost.
var ErrLost = errors.New("the request is lost")

// Delivery says how much of an answer reaches the client.
type Delivery int

// Deliveries of an answer. Unless Delivered, an error answer does not reach the client at
// all.
const (
	Delivered Delivery = iota
	Lost               // the connection is closed before the answer
	Truncated          // half of the answer arrives
)

type deliveryKey struct{}

// WithDelivery returns a context for a call whose answer is delivered as specified.
// [Service.Before] may return it.
func WithDelivery(ctx context.Context, delivery Delivery) context.Context {
	return context.WithValue(ctx, deliveryKey{}, delivery)
}

// answer runs the action that a request names. It returns the response's body and the
// action's context.
func (s *Service) answer(ctx context.Context, id string, r *http.Request, body []byte) (_ context.Context, _ []byte, err error) {
	action, decode, err := s.read(r, body)
	if err != nil {
		return ctx, nil, err
	}
	if CallerFrom(ctx).Account == "" && !slices.Contains(s.Unsigned, action) {
		return ctx, nil, errUnsigned()
	}
	if s.After != nil {
		defer func() { s.After(ctx, action, err) }()
	}
	a := s.actions[action]
	input := a.input()
	if err := decode(input); err != nil {
		return ctx, nil, err
	}
	if s.Before != nil {
		before, err := s.Before(ctx, action, input)
		if before != nil {
			ctx = before
		}
		if err != nil {
			return ctx, nil, err
		}
	}
	output, err := a.answer(ctx, input)
	if err != nil {
		return ctx, nil, err
	}
	answer, err := s.Model.Encode(action, id, output)
	return ctx, answer, err
}

// read returns the action of a request, which the service has, and a function that decodes
// its input.
func (s *Service) read(r *http.Request, body []byte) (action string, decode func(into any) error, err error) {
	if s.Model.Protocol == "json" {
		return s.Model.readJSON(r, body)
	}
	return s.Model.readQuery(r, body)
}

// readQuery returns the action of a request, which the model has, and a function that
// decodes its parameters, which come from the URL and the body.
func (m *Model) readQuery(r *http.Request, body []byte) (action string, decode func(into any) error, err error) {
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", nil, errQuery(err)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return "", nil, errQuery(err)
	}
	for name, values := range form {
		params[name] = append(params[name], values...)
	}
	action = params.Get("Action")
	if action == "" {
		return "", nil, missing("Action")
	}
	if _, ok := m.Operations[action]; !ok {
		return "", nil, invalidAction(action)
	}
	if v := params.Get("Version"); v != "" && v != m.Version {
		return "", nil, Errorf("InvalidParameterValue", "The API version %s is not supported; use %s.", v, m.Version)
	}
	return action, func(into any) error { return m.Decode(action, params, into) }, nil
}

func errQuery(err error) error {
	return Errorf("MalformedQueryString", "The request could not be read: %v", err)
}

func invalidAction(action string) error {
	return Errorf("InvalidAction", "The action %s is not valid for this web service.", action)
}

// WriteError answers a request with err.
func (s *Service) WriteError(w http.ResponseWriter, requestID string, err error) {
	e := AsError(err)
	if s.Model.Protocol == "json" {
		e = inJSON(e)
	}
	s.write(w, e.HTTPStatus(), requestID, s.Model.encodeError(requestID, e))
}

func (s *Service) write(w http.ResponseWriter, status int, id string, body []byte) {
	kind := "text/xml;charset=UTF-8"
	if s.Model.Protocol == "json" {
		kind = jsonType
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("X-Amzn-Requestid", id)
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client has gone
}

// NewRequestID returns a random id in the form of a version 4 UUID.
func NewRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
