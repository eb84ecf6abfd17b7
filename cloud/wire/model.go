// Package wire speaks the AWS query protocols, EC2's and the common one, and the
// JSON protocol 1.1, from the server's side: parameters into the SDK's input
// structs, the SDK's output structs into XML or JSON, errors, and request
// signatures. It knows shapes and no behaviour: what an action does is a method
// of the value given to [New].
package wire

import (
	"archive/zip"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// models are the files in the folder model, which genmodel makes, compressed: they are
// a tenth of it.
//
//go:embed model.zip
var models string

// Model is the wire form of a service's operations.
type Model struct {
	License    string               `json:"license"`
	Service    string               `json:"service"`
	Version    string               `json:"version"`   // of the API, a date
	Protocol   string               `json:"protocol"`  // "ec2", "query" or "json"
	Namespace  string               `json:"namespace"` // of the XML
	Target     string               `json:"target"`    // what precedes an action in X-Amz-Target, in the "json" protocol
	Operations map[string]Operation `json:"operations"`
	Shapes     map[string]Shape     `json:"shapes"` // structures, lists and maps

	// Sent are, by the shape, the members that an answer in XML has although nothing
	// is set: an empty text, or an empty list.
	Sent map[string][]string `json:"-"`

	// Open are the SDK's names of enumerations whose values the actions check,
	// since the error for an unknown one depends on the action.
	Open []string `json:"-"`
}

// Operation names the shapes of an action.
type Operation struct {
	Input   string `json:"in,omitempty"`
	Output  string `json:"out,omitempty"`
	Wrapper string `json:"wrapper,omitempty"` // element around the output, in the "query" protocol
}

// Shape is a structure or, when List is set, a list, or, when Map is set, a map
// from strings.
type Shape struct {
	Members  map[string]Member `json:"members,omitempty"` // by name; the SDK's struct has a field of that name
	Required []string          `json:"required,omitempty"`
	List     *Member           `json:"list,omitempty"`
	Map      *Member           `json:"map,omitempty"`
}

// Member is a field of a structure, an element of a list or a value of a map.
// Shape is the name of a structure, a list or a map, or a kind of scalar:
// string, integer, long, boolean, double, float, timestamp, blob. Min and Max
// bound the length of a string, blob, list or map, or the value of a number;
// only models of the "json" protocol have them.
type Member struct {
	Shape    string   `json:"s"`
	Location string   `json:"n,omitempty"` // name in XML, when it is not the member's
	Query    string   `json:"q,omitempty"` // name in a request, when it is not Location's
	Min      *float64 `json:"min,omitempty"`
	Max      *float64 `json:"max,omitempty"`
}

// Load returns the model of a service, named as its file in the folder model.
func Load(service string) (*Model, error) {
	all, err := zip.NewReader(strings.NewReader(models), int64(len(models)))
	if err != nil {
		return nil, fmt.Errorf("wire: models: %w", err)
	}
	f, err := all.Open(service + ".json")
	if err != nil {
		return nil, fmt.Errorf("wire: no model of service %q: %w", service, err)
	}
	var m Model
	if err := errors.Join(json.NewDecoder(f).Decode(&m), f.Close()); err != nil {
		return nil, fmt.Errorf("wire: model of %s: %w", service, err)
	}
	return &m, nil
}

// RequestName returns what a member is called in a request's parameters.
func (m *Model) RequestName(name string, member Member) string {
	switch {
	case member.Query != "":
		return member.Query
	case member.Location == "":
		return name
	case m.Protocol == "ec2":
		return strings.ToUpper(member.Location[:1]) + member.Location[1:]
	default:
		return member.Location
	}
}

// sentName returns what a member is called in answers, and in requests of JSON.
func (m *Model) sentName(name string, member Member) string {
	if member.Location != "" {
		return member.Location
	}
	return name
}
