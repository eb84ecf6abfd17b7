package wire

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
)

// Caller is who makes a request and where.
type Caller struct {
	Account   string // 12 digits
	Region    string
	AccessKey string

	// The session whose credentials were used; empty for those of the account itself.
	SessionARN string
	SessionID  string

	Host string // with the port, by which the caller has reached the service
}

// Principal returns the caller's ARN and unique id: the session's, or else those
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

// Service answers the actions of a model with the methods of a value.
type Service struct {
	Model *Model

	// Before, if set, is called with every request that decodes, ahead of its
	// action, which gets the context that it returns; its error is the answer.
	Before func(ctx context.Context, action string, input any) (context.Context, error)

	handlers map[string]handler
}

type handler struct {
	method reflect.Value
	input  reflect.Type
}

// New finds, for every action of m, the method of impl that bears its name:
//
//	func (T) Action(context.Context, *service.ActionInput) (*service.ActionOutput, error)
//
// A missing or different method is an error.
func New(m *Model, impl any) (*Service, error) {
	s := &Service{Model: m, handlers: map[string]handler{}}
	for action := range m.Operations {
		method := reflect.ValueOf(impl).MethodByName(action)
		if !method.IsValid() {
			return nil, fmt.Errorf("wire: %T has no method for the action %s", impl, action)
		}
		t := method.Type()
		if t.NumIn() != 2 || t.In(0) != reflect.TypeFor[context.Context]() || !structPointer(t.In(1), action+"Input") ||
			t.NumOut() != 2 || !structPointer(t.Out(0), action+"Output") || t.Out(1) != reflect.TypeFor[error]() {
			return nil, fmt.Errorf("wire: method %T.%s is a %s, not an action", impl, action, t)
		}
		s.handlers[action] = handler{method, t.In(1).Elem()}
	}
	return s, nil
}

func structPointer(t reflect.Type, name string) bool {
	return t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct && t.Elem().Name() == name
}

// Serve answers a request whose body is already read and whose caller is in ctx.
func (s *Service) Serve(ctx context.Context, w http.ResponseWriter, r *http.Request, body []byte) {
	id := NewRequestID()
	answer, err := s.answer(ctx, id, r, body)
	if err != nil {
		s.WriteError(w, id, err)
		return
	}
	s.write(w, http.StatusOK, id, answer)
}

// answer runs the action that a request names, and returns the response's body.
func (s *Service) answer(ctx context.Context, id string, r *http.Request, body []byte) ([]byte, error) {
	read := s.Model.readQuery
	if s.Model.Protocol == "json" {
		read = s.Model.readJSON
	}
	action, decode, err := read(r, body)
	if err != nil {
		return nil, err
	}
	h := s.handlers[action]
	input := reflect.New(h.input)
	if err := decode(input.Interface()); err != nil {
		return nil, err
	}
	if s.Before != nil {
		if ctx, err = s.Before(ctx, action, input.Interface()); err != nil {
			return nil, err
		}
	}
	result := h.method.Call([]reflect.Value{reflect.ValueOf(ctx), input})
	if err, _ := result[1].Interface().(error); err != nil {
		return nil, err
	}
	return s.Model.Encode(action, id, result[0].Interface())
}

// readQuery returns the action of a request, which the model has, and what
// decodes its parameters: those of the URL and of the body.
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
		return "", nil, Errorf("InvalidParameterValue", "The version %s of the API is not spoken here; use %s.", v, m.Version)
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
	s.write(w, e.HTTPStatus(), requestID, s.Model.EncodeError(requestID, e))
}

func (s *Service) write(w http.ResponseWriter, status int, id string, body []byte) {
	kind := "text/xml;charset=UTF-8"
	if s.Model.Protocol == "json" {
		kind = jsonType
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("X-Amzn-Requestid", id)
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone needs no answer
}

// NewRequestID returns a random id in the form of a version 4 UUID.
func NewRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
