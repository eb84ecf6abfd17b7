package shelllocal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/builder"
	"bake/postprocessor"
	"bake/postprocessor/postprocessortest"
	"bake/postprocessor/shelllocal"
)

func TestDocs(t *testing.T) {
	if _, err := shelllocal.Factory().Docs(); err != nil {
		t.Error(err)
	}
}

func TestShellLocal(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	in := &builder.Artifact{ID: "x", Data: builder.Data{"ID": builder.Text("i-1")}}
	for _, body := range []string{
		fmt.Sprintf(`inline = ["printf '%%s' \"$PACKER_BUILD_NAME {{.ID}}\" > %s"]`, out),
		fmt.Sprintf("inline = [\"true\"]\nexecute_command = [\"printf '%%s' 'web {{.ID}}' > %s\"]", out),
	} {
		a, keep, err := postprocessortest.Process(t, shelllocal.Factory(), body, in)
		if err != nil || a != in || keep != postprocessor.MustKeep {
			t.Errorf("%s\ngot %v, %v, %v", body, a, keep, err)
		}
		if b, err := os.ReadFile(out); err != nil || string(b) != "web i-1" {
			t.Errorf("%s\nwrote %q, %v", body, b, err)
		}
		os.Remove(out)
	}
	if _, _, err := postprocessortest.Process(t, shelllocal.Factory(), `inline = ["exit 2"]`, in); err == nil || !strings.Contains(err.Error(), "status: 2") {
		t.Errorf("got %v", err)
	}
}

func TestConformance(t *testing.T) {
	postprocessortest.Suite{Factory: shelllocal.Factory(), Body: `inline = ["echo hi"]`, Untouched: true}.Run(t)
}
