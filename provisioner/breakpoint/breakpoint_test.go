package breakpoint_test

import (
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"bake/provisioner/breakpoint"
	"bake/provisioner/provisionertest"
	"bake/step"
)

// keyboard is a terminal on which text is typed.
func keyboard(text string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
}

func TestConformance(t *testing.T) {
	provisionertest.Run(t, breakpoint.Factory(keyboard("\n")), ``, t.TempDir())
	provisionertest.Run(t, breakpoint.Factory(nil), `disable = true`, t.TempDir())
	synctest.Test(t, func(t *testing.T) {
		nobody := func() (io.ReadCloser, error) {
			r, _ := io.Pipe()
			return r, nil
		}
		provisionertest.Cancelled(t, provisionertest.New(t, breakpoint.Factory(nobody), `note = "look"`))
	})
}

func TestBreakpoint(t *testing.T) {
	none := func() (io.ReadCloser, error) { return nil, os.ErrNotExist }
	for _, tt := range []struct {
		body string
		open func() (io.ReadCloser, error)
		said []string
		err  string
	}{
		{``, keyboard("\n"), []string{"Pausing at breakpoint.", "Press enter to continue."}, ""},
		{`note = "100%s"`, keyboard("yes\nmore"), []string{"Pausing at breakpoint: 100%s", "Press enter to continue."}, ""},
		{`disable = true`, none, []string{"Breakpoint is disabled; continuing."}, ""},
		{"disable = true\nnote = \"n\"", none, []string{`Breakpoint with note "n" is disabled; continuing.`}, ""},
		{``, none, nil, "needs a terminal"},
		{``, keyboard("yes"), []string{"Pausing at breakpoint.", "Press enter to continue."}, "terminal was closed"},
	} {
		s, log := provisionertest.Scope(t)
		err := provisionertest.New(t, breakpoint.Factory(tt.open), tt.body).Provision(t.Context(), s, provisionertest.NewMachine(t).Builder())
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: got %v, want %q", tt.body, err, tt.err)
		}
		if said := log.Texts(step.Say); !slices.Equal(said, tt.said) {
			t.Errorf("%s: it says %q, want %q", tt.body, said, tt.said)
		}
		if err != nil && errors.Is(err, os.ErrNotExist) != (tt.err == "needs a terminal") {
			t.Errorf("%s: got %v", tt.body, err)
		}
	}
}
