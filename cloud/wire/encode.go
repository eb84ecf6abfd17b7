package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// Encode returns the response of action; out is a pointer to the SDK's output struct. It
// omits nil fields except those in [Model.Sent]. An empty list that is not nil becomes an
// empty element or array.
func (m *Model) Encode(action, requestID string, out any) ([]byte, error) {
	op := m.Operations[action]
	if m.Protocol == "json" {
		body, err := m.encodeJSON(op.Output, out)
		if err != nil {
			return nil, fmt.Errorf("wire: response of %s: %w", action, err)
		}
		return body, nil
	}
	e := encoder{m: m}
	e.WriteString(xml.Header)
	fmt.Fprintf(&e, `<%sResponse xmlns="%s">`, action, m.Namespace)
	if m.Protocol == "ec2" {
		e.text("requestId", requestID)
	}
	if op.Wrapper != "" {
		e.open(op.Wrapper)
	}
	if op.Output == "" {
		e.text("return", "true")
	} else if err := e.structure(op.Output, reflect.ValueOf(out).Elem()); err != nil {
		return nil, fmt.Errorf("wire: response of %s: %w", action, err)
	}
	if op.Wrapper != "" {
		e.close(op.Wrapper)
	}
	if m.Protocol == "query" {
		e.open("ResponseMetadata")
		e.text("RequestId", requestID)
		e.close("ResponseMetadata")
	}
	e.close(action + "Response")
	return e.Bytes(), nil
}

// encodeError writes err in the form that the protocol's clients expect.
func (m *Model) encodeError(requestID string, err *Error) []byte {
	if m.Protocol == "json" {
		return encodeJSONError(err)
	}
	e := encoder{m: m}
	e.WriteString(xml.Header)
	if m.Protocol == "ec2" {
		e.open("Response")
		e.open("Errors")
		e.open("Error")
		e.text("Code", err.Code)
		e.text("Message", err.Message)
		e.close("Error")
		e.close("Errors")
		e.text("RequestID", requestID)
		e.close("Response")
		return e.Bytes()
	}
	fault := "Sender"
	if err.HTTPStatus() >= 500 {
		fault = "Receiver"
	}
	fmt.Fprintf(&e, `<ErrorResponse xmlns="%s">`, m.Namespace)
	e.open("Error")
	e.text("Type", fault)
	e.text("Code", err.Code)
	e.text("Message", err.Message)
	e.close("Error")
	e.text("RequestId", requestID)
	e.close("ErrorResponse")
	return e.Bytes()
}

type encoder struct {
	m *Model
	bytes.Buffer
}

func (e *encoder) open(name string)  { e.WriteString("<" + name + ">") }
func (e *encoder) close(name string) { e.WriteString("</" + name + ">") }

func (e *encoder) text(name, text string) {
	e.open(name)
	_ = xml.EscapeText(e, []byte(text)) // writing to a bytes.Buffer never fails
	e.close(name)
}

func (e *encoder) structure(shape string, v reflect.Value) error {
	s := e.m.Shapes[shape]
	for _, name := range sortedKeys(s.Members) {
		field := v.FieldByName(name)
		if !field.IsValid() {
			continue // the model is newer than the SDK, so no handler can have set it
		}
		member := s.Members[name]
		if unset(field) && slices.Contains(e.m.Sent[shape], name) {
			e.text(e.m.sentName(name, member), "")
			continue
		}
		if err := e.value(e.m.sentName(name, member), member.Shape, field); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func unset(v reflect.Value) bool {
	return (v.Kind() == reflect.Pointer || v.Kind() == reflect.Slice) && v.IsNil()
}

func (e *encoder) value(name, shape string, v reflect.Value) error {
	if unset(v) {
		return nil
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	s, compound := e.m.Shapes[shape]
	switch {
	case !compound:
		text, err := format(shape, v)
		// Enumerations are not pointers: empty means not set.
		if err != nil || text == "" && v.Kind() == reflect.String && v.Type() != reflect.TypeFor[string]() {
			return err
		}
		e.text(name, text)
	case s.List != nil:
		element := s.List.Location
		if element == "" {
			element = "member"
		}
		e.open(name)
		for i := range v.Len() {
			if err := e.value(element, s.List.Shape, v.Index(i)); err != nil {
				return err
			}
		}
		e.close(name)
	default:
		e.open(name)
		if err := e.structure(shape, v); err != nil {
			return err
		}
		e.close(name)
	}
	return nil
}

func format(kind string, v reflect.Value) (string, error) {
	switch {
	case kind == "string" && v.Kind() == reflect.String:
		return v.String(), nil
	case (kind == "integer" || kind == "long") && v.CanInt():
		return strconv.FormatInt(v.Int(), 10), nil
	case kind == "boolean" && v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool()), nil
	case (kind == "double" || kind == "float") && v.CanFloat():
		return strconv.FormatFloat(v.Float(), 'f', -1, 64), nil
	case kind == "timestamp" && v.Type() == reflect.TypeFor[time.Time]():
		return v.Interface().(time.Time).UTC().Format("2006-01-02T15:04:05.000Z"), nil
	case kind == "blob" && v.Type() == reflect.TypeFor[[]byte]():
		return base64.StdEncoding.EncodeToString(v.Bytes()), nil
	}
	return "", fmt.Errorf("a %s of the model is a %s of the SDK", kind, v.Type())
}
