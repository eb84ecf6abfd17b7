// Package datasource defines what looks values up for a template.
package datasource

import (
	"context"

	"github.com/zclconf/go-cty/cty"
)

// DataSource looks something up. Its outputs are the exports of its factory.
type DataSource interface {
	// Read returns an object with one attribute for each export. It changes
	// nothing in the world.
	Read(ctx context.Context) (cty.Value, error)
}

// Remote is a data source that waits for something else when it is read.
type Remote interface {
	// Waits returns what it waits for, without secrets, such as "GET https://example.com/, for at
	// most 2m".
	Waits() string
}
