// Package wire implements the server side of the AWS query protocols, EC2's and the common
// one, and of the JSON protocol 1.1: it decodes parameters into the SDK's input structs,
// encodes the SDK's output structs as XML or JSON, encodes errors, and verifies request
// signatures. It knows only shapes; actions are implemented by the functions given to
// [New].
package wire

import (
	"archive/zip"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// models is a zip file of the models that genmodel generates. Compression reduces them to
// a tenth of their size.
//
//go:embed model.zip
var models string

// Model describes a service's operations and their encoding.
type Model struct {
	License    string               `json:"license"`
	Service    string               `json:"service"`
	Version    string               `json:"version"`   // API version, a date
	Protocol   string               `json:"protocol"`  // "ec2", "query" or "json"
	Namespace  string               `json:"namespace"` // XML namespace
	Target     string               `json:"target"`    // prefix of the action in X-Amz-Target, in the "json" protocol
	Operations map[string]Operation `json:"operations"`
	Shapes     map[string]Shape     `json:"shapes"` // structures, lists and maps

	// Sent lists, by shape, the members that an XML answer contains even if they are not
	// set, as an empty text or list.
	Sent map[string][]string `json:"-"`

	// Open lists the SDK's enumerations whose values the actions check themselves, since
	// the error for an unknown value depends on the action.
	Open []string `json:"-"`
}

// Operation names the input and output shapes of an action.
type Operation struct {
	Input   string `json:"in,omitempty"`
	Output  string `json:"out,omitempty"`
	Wrapper string `json:"wrapper,omitempty"` // element around the output, in the "query" protocol
}

// Shape is a structure or, if List is set, a list or, if Map is set, a map with string
// keys.
type Shape struct {
	Members  map[string]Member `json:"members,omitempty"` // by the name of the field in the SDK's struct
	Required []string          `json:"required,omitempty"`
	List     *Member           `json:"list,omitempty"`
	Map      *Member           `json:"map,omitempty"`
}

// Member is a field of a structure, an element of a list or a value of a map. Shape is the
// name of a structure, a list or a map, or a kind of scalar: string, integer, long,
// boolean, double, float, timestamp, blob. Min and Max limit the length of a string, blob,
// list or map, or the value of a number; only models of the "json" protocol have them.
type Member struct {
	Shape    string   `json:"s"`
	Location string   `json:"n,omitempty"` // name in XML, if it differs from the member's
	Query    string   `json:"q,omitempty"` // name in a request, if it differs from Location
	Min      *float64 `json:"min,omitempty"`
	Max      *float64 `json:"max,omitempty"`
}

// Load returns the model of a service, by the name of its file in the folder model.
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

// RequestName returns the name of a member in a request's parameters.
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

// sentName returns the name of a member in answers and in JSON requests.
func (m *Model) sentName(name string, member Member) string {
	if member.Location != "" {
		return member.Location
	}
	return name
}
