package builder_test

import (
	"testing"

	"bake/builder"
)

func TestLeftovers(t *testing.T) {
	var none *builder.Leftovers
	none.Add(builder.Leftover{})
	if got := none.Take(); got != nil {
		t.Errorf("got %v", got)
	}
	l := &builder.Leftovers{}
	l.Add(builder.Leftover{Path: "/tmp/a"})
	l.Add(builder.Leftover{Path: "/tmp/b"})
	if got := l.Take(); len(got) != 2 || got[0].Path != "/tmp/a" || got[1].Path != "/tmp/b" {
		t.Errorf("got %v", got)
	}
	if got := l.Take(); got != nil {
		t.Errorf("taken twice: %v", got)
	}
}
