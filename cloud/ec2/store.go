package ec2

import (
	"crypto/rand"
	"encoding/hex"

	"bake/cloud/durable"
)

// table is a [durable.Table] under the names that this package uses.
type table[T any] struct {
	*durable.Table[T]
	rows map[string]*T
}

func openTable[T any](dir string, wrote func()) (*table[T], error) {
	t, err := durable.OpenTable[T](dir, wrote)
	if err != nil {
		return nil, err
	}
	return &table[T]{t, t.Rows}, nil
}

func (t *table[T]) get(id string) (*T, bool)              { return t.Get(id) }
func (t *table[T]) all() []*T                             { return t.All() }
func (t *table[T]) put(id string, row *T) error           { return t.Put(id, row) }
func (t *table[T]) edit(id string, change func(*T)) error { return t.Edit(id, change) }
func (t *table[T]) drop(id string) error                  { return t.Drop(id) }
func (t *table[T]) ids() []string                         { return t.IDs() }

// newID returns an id like EC2's: prefix, a hyphen, 17 hexadecimal digits.
func newID(prefix string) string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + "-0" + hex.EncodeToString(b[:])[:16]
}
