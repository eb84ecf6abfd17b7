package config

import (
	"fmt"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/config/lang"
	"bake/internal/redact"
)

// weak holds the sensitive values that cannot be masked everywhere. It is safe for
// concurrent use.
type weak struct {
	mu    sync.Mutex
	diags hcl.Diagnostics
}

// check warns if val, the value of name, contains a text that is too common to be masked
// everywhere.
func (w *weak) check(what, name string, at hcl.Range, val cty.Value) {
	found := false
	lang.Strings(val, func(text string) {
		found = found || strings.TrimSpace(text) != "" && !redact.Rare(text)
	})
	if !found {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.diags = lang.AppendNew(w.diags, hcl.Diagnostics{{
		Severity: hcl.DiagWarning, Summary: "Sensitive value is short or common", Subject: &at,
		Detail: fmt.Sprintf("The value of the sensitive %s %q is short, a single word or a number. In the output of scripts it is masked only as a whole word, and in bake's own messages only in quotes. Use a secret of at least 8 characters that is not a word.", what, name),
	}})
}

// WeakSecrets warns of sensitive values, as far as they have been computed, that are too
// short or too common to be masked everywhere.
func (t *Template) WeakSecrets() hcl.Diagnostics {
	t.weak.mu.Lock()
	defer t.weak.mu.Unlock()
	return append(hcl.Diagnostics(nil), t.weak.diags...)
}
