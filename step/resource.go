package step

import (
	"context"
	"fmt"
	"strings"
)

// Resource is something that exists outside this process and may cost money. It contains no
// secrets, because it is written to disk.
type Resource struct {
	Kind  string `json:"kind"`            // such as "ec2:instance"; the part before the colon finds the destroyer
	Key   string `json:"key"`             // unique in the run and chosen before the request: client token, name or tag
	ID    string `json:"id,omitempty"`    // chosen by the cloud; empty until created
	Where string `json:"where,omitempty"` // region
	Build string `json:"build,omitempty"` // the build that owns it

	// With contains what another process needs to access and find the resource, such as a profile,
	// an endpoint or a name.
	With map[string]string `json:"with,omitempty"`
}

// String describes the resource to users: "instance i-0abc in us-east-1".
func (r Resource) String() string {
	_, what, _ := strings.Cut(r.Kind, ":")
	s := strings.ReplaceAll(what, "-", " ")
	if plugin, command := r.With["plugin"], r.With["command"]; plugin != "" || command != "" { // a process, whose ID includes its start time
		pid, _, _ := strings.Cut(r.ID, "@")
		if s = strings.TrimRight(what+" "+pid, " "); plugin != "" {
			s += " of the plugin " + plugin
		} else {
			s += " (" + command + ")"
		}
	} else if r.ID != "" {
		s += " " + r.ID
	} else {
		s += " " + r.Key
	}
	if r.Where != "" {
		s += " in " + r.Where
	}
	return s
}

// Destroyer deletes a resource. It must succeed if the resource is already gone, and must find the
// resource by Key and With if ID is empty.
type Destroyer interface {
	Destroy(ctx context.Context, r Resource) error
}

// Destroyers maps the part of a resource's kind before the colon to its destroyer.
type Destroyers map[string]Destroyer

// Destroy implements [Destroyer].
func (ds Destroyers) Destroy(ctx context.Context, r Resource) error {
	prefix, _, _ := strings.Cut(r.Kind, ":")
	d, ok := ds[prefix]
	if !ok {
		return fmt.Errorf("bake does not know how to delete a resource of kind %q; delete %s by hand", r.Kind, r)
	}
	return d.Destroy(ctx, r)
}

// DestroyerFunc is a function as a [Destroyer].
type DestroyerFunc func(ctx context.Context, r Resource) error

// Destroy implements [Destroyer].
func (f DestroyerFunc) Destroy(ctx context.Context, r Resource) error { return f(ctx, r) }
