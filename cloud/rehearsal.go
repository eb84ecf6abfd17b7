package cloud

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"bake/cloud/ec2"
)

// Rehearsal describes how the cloud differs from one that is instant and never fails. Its
// file is JSON:
//
//	{
//	  "delays": "aws",
//	  "faults": {
//	    "seed": 1,
//	    "rules": [
//	      {"action": "RunInstances", "calls": 2, "code": "InsufficientInstanceCapacity"},
//	      {"probability": 0.05, "code": "RequestLimitExceeded"},
//	      {"action": "CopyImage", "region": "eu-west-1", "effect": "fail", "message": "Copy failed"},
//	      {"action": "CreateImage", "effect": "hide", "times": 3}
//	    ]
//	  }
//	}
//
// For "delays", the name of a profile or an object such as {"copy": "2m"}, see [Delays].
// For the rules, see [Fault].
type Rehearsal struct {
	Delays Delays  `json:"delays"`
	Faults *Faults `json:"faults"`
}

// maxRehearsal limits the size of a rehearsal file, in bytes.
const maxRehearsal = 1 << 20

// LoadRehearsal reads a rehearsal file. Errors name the file and, if known, the line.
func LoadRehearsal(name string) (Rehearsal, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return Rehearsal{}, err
	case !info.Mode().IsRegular(): // opening a pipe may block, and it can be read only once
		return Rehearsal{}, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return Rehearsal{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRehearsal+1))
	if err != nil {
		return Rehearsal{}, err
	}
	if len(data) > maxRehearsal {
		return Rehearsal{}, fmt.Errorf("%s: the file is larger than 1 MiB", name)
	}
	return readRehearsal(name, data)
}

// readRehearsal parses data, the content of the file name.
func readRehearsal(name string, data []byte) (Rehearsal, error) {
	var r Rehearsal
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(&r)
	if err == nil && len(bytes.TrimSpace(data[d.InputOffset():])) > 0 {
		line := 1 + bytes.Count(data[:d.InputOffset()], []byte("\n"))
		return r, fmt.Errorf("%s:%d: there is text after the end of the object", name, line)
	}
	if err != nil {
		return r, fmt.Errorf("%s%s: %w", name, place(data, err), err)
	}
	return r, nil
}

// place returns the line that an error is about, as ":7", or "" if it is unknown.
func place(data []byte, err error) string {
	offset := int64(-1)
	if rule, ok := errors.AsType[*ec2.RuleError](err); ok {
		offset = ruleOffset(data, rule.Index)
		if offset >= 0 && rule.Field != "" {
			offset += fieldOffset(data[offset:], rule.Field)
		}
	} else if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		offset = syntax.Offset
	} else if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		offset = int64(len(data))
	}
	if offset < 0 || offset > int64(len(data)) {
		return ""
	}
	return fmt.Sprintf(":%d", 1+bytes.Count(data[:offset], []byte("\n")))
}

// ruleOffset returns the offset in data, a JSON file, at which the rule with that index
// begins, or -1.
func ruleOffset(data []byte, index int) int64 {
	d := json.NewDecoder(bytes.NewReader(data))
	skip := func() bool { var value json.RawMessage; return d.Decode(&value) == nil }
	for _, want := range []string{"faults", "rules"} {
		if _, err := d.Token(); err != nil { // the brace
			return -1
		}
		for {
			key, err := d.Token()
			if err != nil {
				return -1
			}
			if text, ok := key.(string); ok && text == want {
				break
			}
			if !skip() {
				return -1
			}
		}
	}
	if _, err := d.Token(); err != nil { // the bracket
		return -1
	}
	for range index {
		if !skip() {
			return -1
		}
	}
	offset := d.InputOffset()
	return offset + int64(len(data[offset:])-len(bytes.TrimLeft(data[offset:], ", \t\r\n")))
}

// fieldOffset returns the offset at which the field begins in the object at the start of
// data, or 0.
func fieldOffset(data []byte, field string) int64 {
	d := json.NewDecoder(bytes.NewReader(data))
	if _, err := d.Token(); err != nil { // the brace
		return 0
	}
	for {
		key, err := d.Token()
		if err != nil {
			return 0
		}
		if text, ok := key.(string); ok && text == field {
			return d.InputOffset()
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return 0
		}
	}
}
