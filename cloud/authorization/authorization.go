// Package authorization encodes the message with which a service says why it
// refused a call, for STS to decode: the service encodes it, since it may hold
// what the caller is not to know.
package authorization

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
)

// Message is why a call was refused.
type Message struct {
	Allowed           bool       `json:"allowed"`
	ExplicitDeny      bool       `json:"explicitDeny"`
	MatchedStatements Statements `json:"matchedStatements"`
	Failures          Statements `json:"failures"`
	Context           Context    `json:"context"`
}

// Statements are those of policies that matched; nothing here has policies.
type Statements struct {
	Items []struct{} `json:"items"`
}

// Context is who wanted to do what.
type Context struct {
	Principal  Principal  `json:"principal"`
	Action     string     `json:"action"`   // "ec2:RunInstances"
	Resource   string     `json:"resource"` // an ARN
	Conditions Statements `json:"conditions"`
}

// Principal is who wanted it.
type Principal struct {
	ID  string `json:"id"`
	ARN string `json:"arn"`
}

// Encode returns m in a form that means nothing to its reader.
func Encode(m Message) string {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // plain data
	}
	var b bytes.Buffer
	z, err := flate.NewWriter(&b, flate.BestCompression)
	if err != nil {
		panic(err) // the level is a valid one
	}
	_, _ = z.Write(text) // a bytes.Buffer takes everything
	_ = z.Close()
	return base64.RawURLEncoding.EncodeToString(b.Bytes())
}

// Decode returns the JSON of the message that encoded holds.
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
		return "", errors.New("it holds no message")
	}
	return string(text), nil
}
