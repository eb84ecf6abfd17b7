// Package authorization encodes the reason why a service refused a call, for the caller to decode
// with STS's DecodeAuthorizationMessage. AWS encodes it because it may contain details that the
// caller is not allowed to see; only callers with permission to decode it get them.
package authorization

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
)

// Message is the reason why a call was refused, in the JSON form that STS returns.
type Message struct {
	Allowed           bool       `json:"allowed"`
	ExplicitDeny      bool       `json:"explicitDeny"`
	MatchedStatements Statements `json:"matchedStatements"`
	Failures          Statements `json:"failures"`
	Context           Context    `json:"context"`
}

// Statements are the policy statements that matched. The list is always empty: the embedded cloud
// does not evaluate policies.
type Statements struct {
	Items []struct{} `json:"items"`
}

// Context describes the refused call.
type Context struct {
	Principal  Principal  `json:"principal"`
	Action     string     `json:"action"`   // "ec2:RunInstances"
	Resource   string     `json:"resource"` // ARN
	Conditions Statements `json:"conditions"`
}

// Principal is the caller.
type Principal struct {
	ID  string `json:"id"`
	ARN string `json:"arn"`
}

// Encode returns m in an opaque form that Decode understands.
func Encode(m Message) string {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // cannot happen: m is plain data
	}
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		panic(err) // cannot happen: the level is valid
	}
	_, _ = z.Write(text) // writing to a bytes.Buffer does not fail
	_ = z.Close()
	return base64.RawURLEncoding.EncodeToString(b.Bytes())
}

// Decode returns the JSON text of an encoded message, or an error if encoded is not the result of
// Encode.
func Decode(encoded string) (string, error) {
	data, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(data)), 1<<20))
	if err != nil {
		return "", err
	}
	var m Message
	if err := json.Unmarshal(text, &m); err != nil || m.Context.Action == "" {
		return "", errors.New("it contains no message")
	}
	return string(text), nil
}
