package host

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/config/schema"
	"bake/internal/lazyregexp"
	"bake/plugin/wire"
)

// preparation is a plugin's result for options.
type preparation struct {
	generated []string // names of build.*
	warnings  []string
	err       error
}

// Limits on a plugin's messages about options.
const (
	maxComplaints = 100
	maxComplaint  = 16 << 10
	maxGenerated  = 1000
)

// coreVersion is the version of Packer that bake reports to plugins.
const coreVersion = "1.16.0"

// configs returns what a plugin receives for a block: facts about the build, and the options.
func (p *part) configs(d *decoded) ([]any, error) {
	value, err := stand(d.value)
	if err != nil {
		return nil, err
	}
	body, err := wire.EncodeConfig(value)
	if err != nil || p.kind == dataSourceKind {
		return []any{body}, err
	}
	vars := map[string]any{
		"packer_build_name": d.build.Name, "packer_builder_type": d.build.Type, "packer_core_version": coreVersion,
		"packer_debug": fmt.Sprint(d.build.Debug), "packer_force": fmt.Sprint(d.build.Force), "packer_on_error": onError(d.build),
	}
	switch p.kind {
	case provisionerKind:
		vars["packer_sensitive_variables"] = sensitive(d.build)
		return []any{vars, body, nil}, nil // the override is in the body already
	case postProcessorKind:
		vars["packer_sensitive_variables"] = sensitive(d.build)
	}
	return []any{vars, body}, nil
}

// onError returns -on-error in the form that plugins expect: the default is empty.
func onError(b schema.Build) string {
	if b.OnError == "cleanup" {
		return ""
	}
	return b.OnError
}

// prepare passes the options to a plugin. The error is the plugin's, then also in out, or that of
// the call.
func (p *part) prepare(ctx context.Context, proc *process, d *decoded) (out preparation, err error) {
	configs, err := p.configs(d)
	if err != nil {
		return out, err
	}
	var reply struct {
		GeneratedVars, Warnings []string
		Error                   *struct{ Message string }
	}
	method, to := "Prepare", any(&reply)
	switch p.kind {
	case provisionerKind:
		to = nil
	case postProcessorKind:
		method, to = "Configure", nil
	case dataSourceKind:
		method = "Configure"
	}
	err = p.limited(ctx, proc, prepareCall, method, struct{ Configs []any }{configs}, to)
	if remote, ok := errors.AsType[wire.RemoteError](err); ok {
		out.err, err = complaint(remote.Error()), nil
	}
	if err != nil {
		return out, err
	}
	if reply.Error != nil {
		out.err = complaint(reply.Error.Message)
	}
	for _, name := range reply.GeneratedVars {
		if len(name) <= maxComponentName && hclsyntax.ValidIdentifier(name) && len(out.generated) < maxGenerated {
			out.generated = append(out.generated, name)
		}
	}
	for _, w := range reply.Warnings[:min(len(reply.Warnings), maxComplaints)] {
		out.warnings = append(out.warnings, clip(w, maxComplaint))
	}
	return out, nil
}

// complaint is an error in the options, in the plugin's words.
type complaint string

func (c complaint) Error() string { return string(c) }

// checked is prepare for a check: it runs in a separate process, once for the same options.
func (p *part) checked(ctx context.Context, proc *process, d *decoded) (preparation, error) {
	configs, err := p.configs(d)
	if err != nil {
		return preparation{}, err
	}
	text, err := json.Marshal(configs)
	if err != nil {
		return preparation{}, err
	}
	key := sha256.Sum256(text)
	p.mu.Lock()
	done, ok := p.prepared[key]
	p.mu.Unlock()
	if ok {
		return done, nil
	}
	if proc == nil {
		if proc, err = p.start(ctx, false); err != nil {
			return preparation{}, err
		}
		defer proc.drop()
	}
	done, err = p.prepare(ctx, proc, d)
	if err != nil {
		return done, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prepared[key] = done
	return done, nil
}

var (
	listHead = lazyregexp.New(`(?m)^\s*\d+ errors?(?:\(s\))? occurred:\s*$`)
	bullet   = lazyregexp.New(`(?m)^\s*\* `)
)

// points splits a text into single complaints, which plugins join into a list.
func points(text string) (list []string) {
	if !listHead.Get().MatchString(text) {
		return []string{strings.TrimSpace(text)}
	}
	parts := bullet.Get().Split(listHead.Get().ReplaceAllString(text, ""), -1)
	for _, p := range parts {
		if p = strings.TrimSpace(p); p != "" && len(list) < maxComplaints {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return []string{strings.TrimSpace(text)}
	}
	return list
}

// blame turns a plugin's complaints into diagnostics, each at the option that it names. It drops
// complaints about values that are not known yet.
func (d *decoded) blame(label string, err error) (diags hcl.Diagnostics) {
	if err == nil {
		return nil
	}
	var said complaint
	if !errors.As(err, &said) {
		return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Plugin failed", Detail: fmt.Sprintf("%s: %s.", label, strings.TrimRight(clip(err.Error(), maxComplaint), ".\n")), Subject: d.block.Ptr()}}
	}
	for _, point := range points(string(said)) {
		point = clip(point, maxComplaint)
		if len(d.late) > 0 && (strings.Contains(point, notKnown) || names(point, d.late) != "") {
			continue
		}
		subject := d.block
		if name := names(point, d.where); name != "" {
			subject = d.where[name]
		}
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Not accepted by the plugin", Subject: &subject,
			Detail: fmt.Sprintf("%s: %s", label, point),
		})
	}
	return diags
}

// names returns the longest of names that occurs as a word in text, or "".
func names(text string, names map[string]hcl.Range) (found string) {
	for name := range names {
		if (len(name) > len(found) || len(name) == len(found) && name < found) && hasWord(text, name) {
			found = name
		}
	}
	return found
}

func hasWord(text, word string) bool {
	isPart := func(c byte) bool {
		return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	for i := 0; ; {
		n := strings.Index(text[i:], word)
		if n < 0 {
			return false
		}
		from, to := i+n, i+n+len(word)
		if (from == 0 || !isPart(text[from-1])) && (to == len(text) || !isPart(text[to])) {
			return true
		}
		i = from + 1
	}
}

// warnings turns a plugin's warnings into diagnostics.
func (d *decoded) warnings(label string, texts []string) (diags hcl.Diagnostics) {
	for _, text := range texts {
		subject := d.block
		if name := names(text, d.where); name != "" {
			subject = d.where[name]
		}
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagWarning, Summary: "Message from the plugin", Subject: &subject,
			Detail: fmt.Sprintf("%s: %s", label, text),
		})
	}
	return diags
}

// clip shortens a text to about n bytes.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "…"
}
