package lazyregexp_test

import (
	"sync"
	"testing"

	"bake/internal/lazyregexp"
)

var digits = lazyregexp.New(`^[0-9]+$`)

func TestGet(t *testing.T) {
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if !digits.Get().MatchString("12") || digits.Get().MatchString("a") {
				t.Error("it matches something else")
			}
		})
	}
	all.Wait()
	defer func() {
		if recover() == nil {
			t.Error("an invalid expression is compiled")
		}
	}()
	lazyregexp.New("(").Get()
}
