package ebssurrogate_test

import (
	"context"
	"strings"
	"testing"

	"bake/builder/amazon/ebssurrogate"
	"bake/builder/amazon/internal/amazontest"
)

// TestSharing: if an image that is to be shared gets a volume encrypted with a key that AWS
// manages, that is an error before a machine is launched; omitted volumes do not count.
func TestSharing(t *testing.T) {
	const users = "ami_users = [\"123456789012\"]\n"
	omitted := strings.NewReplacer("= true\n}\nami_root", "= true\n  omit_from_artifact = true\n}\nami_root").Replace(small)
	for name, tt := range map[string]struct {
		body    string
		refused bool
	}{"in the image": {small, true}, "omitted": {omitted, false}} {
		t.Run(name, func(t *testing.T) {
			w := amazontest.NewWorld(t, ebssurrogate.Factory)
			b := w.Bake(t)
			_, err := b.Build(t.Context(), amazontest.Plain(tt.body+users))
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
			if refused := err != nil && strings.Contains(err.Error(), "Sharing an image that others cannot decrypt"); refused != tt.refused || err != nil && !refused {
				t.Errorf("error: %v", err)
			}
			if left := w.Holdings(); tt.refused && len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
