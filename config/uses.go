package config

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"bake/config/lang"
	"bake/internal/hostpath"
)

// Use is an input of a build: a part of a template, or of what the template is given.
type Use struct {
	Name   string // such as "var.release", "provisioner 1 (shell)" or "file motd.txt"
	Text   string // its content: a value as JSON, a block without its layout, the digest of a file
	Value  bool   // Text is a value
	Secret bool   // Text must not be shown, nor be guessed
}

// Uses returns the inputs of a build as far as its template defines them, without reading
// the files that components read. Arguments and blocks of the source block whose names are
// in without do not count, and neither does what only they refer to. more are additional
// bodies, by name. Uses reads data sources that the build refers to if they have not been
// read.
//
// It must not be called while the template is in use elsewhere.
func (t *Template) Uses(ctx context.Context, b *Build, without []string, more map[string]hcl.Body) ([]Use, hcl.Diagnostics) {
	u := &user{t: t, ctx: ctx, done: map[string]bool{}}
	u.component("source "+b.Type+"."+b.Source, b.Builder, without)
	for i, p := range b.Provisioners {
		u.component(numbered("provisioner", i, p.Type, p.Name), p.Component, nil)
	}
	if p := b.ErrorCleanup; p != nil {
		u.component("error-cleanup-provisioner", p.Component, nil)
	}
	n := 0
	for _, chain := range b.PostProcessors {
		for _, p := range chain {
			u.component(numbered("post-processor", n, p.Type, p.Name), p.Component, nil)
			n++
		}
	}
	for name, body := range more {
		u.bodies(name, []hcl.Body{body}, nil, nil)
	}
	return u.uses, u.diags
}

func numbered(what string, i int, typ, name string) string {
	if name != "" {
		typ += " " + name
	}
	return fmt.Sprintf("%s %d (%s)", what, i+1, typ)
}

// user collects what a build uses.
type user struct {
	t     *Template
	ctx   context.Context
	done  map[string]bool
	uses  []Use
	diags hcl.Diagnostics
}

func (u *user) component(name string, c *Component, without []string) {
	var extra []hcl.Expression
	if c.override != nil {
		extra = append(extra, c.override)
	}
	u.bodies(name, c.origins, without, extra)
}

func (u *user) bodies(name string, bodies []hcl.Body, without []string, extra []hcl.Expression) {
	c := &canonical{files: u.t.files, without: without}
	for _, b := range bodies {
		c.body(b, true)
		c.printf("|")
	}
	for _, e := range extra {
		c.expression(e)
	}
	var refs []hcl.Traversal
	for _, e := range c.seen {
		refs = append(refs, e.Variables()...)
	}
	u.add(Use{Name: name, Text: c.String()})
	u.refer(refs)
	// Functions read files: evaluating the expressions again shows which ones.
	ec, _ := u.t.scope.Context(u.ctx, refs) // refer has the diagnostics
	ec = ec.NewChild()
	ec.Variables = map[string]cty.Value{"build": cty.DynamicVal, "source": cty.DynamicVal, "each": cty.DynamicVal, "image": cty.DynamicVal}
	u.files(u.t.reads.during(func() {
		for _, e := range c.seen {
			_, _ = e.Value(ec) // errors are reported when the component is decoded
		}
	}))
}

func (u *user) add(one Use) {
	if !u.done[one.Name] {
		u.done[one.Name] = true
		u.uses = append(u.uses, one)
	}
}

// refer adds what traversals refer to.
func (u *user) refer(refs []hcl.Traversal) {
	for _, ref := range refs {
		switch ref.RootName() {
		case "var", "data":
			u.value(ref)
		case "local":
			for _, n := range u.t.scope.Find(ref) {
				u.local(n)
			}
		}
	}
}

// local adds a local value: its expression and the inputs of that.
func (u *user) local(n *lang.Node) {
	if n.Expr == nil || u.done[n.Address] {
		return
	}
	c := &canonical{files: u.t.files}
	c.expression(n.Expr)
	u.add(Use{Name: n.Address, Text: c.String(), Secret: n.Secret})
	_, diags := u.t.scope.Value(u.ctx, n)
	u.diags = lang.AppendNew(u.diags, diags)
	u.files(u.t.reads.of(n.Address))
	u.refer(n.Refs)
}

// value adds the value of a variable or data source, or the part of it that is referred to.
func (u *user) value(ref hcl.Traversal) {
	c := &canonical{}
	c.traversal(ref)
	ec, diags := u.t.scope.Context(u.ctx, []hcl.Traversal{ref})
	u.diags = lang.AppendNew(u.diags, diags)
	val, more := ref.TraverseAbs(ec)
	if more.HasErrors() { // the evaluation reports the error, unless try catches it
		u.add(Use{Name: shortName(ref), Text: "none", Value: true})
		return
	}
	val, _ = val.UnmarkDeep()
	text := []byte("unknown")
	if val.IsWhollyKnown() {
		var err error
		if text, err = ctyjson.Marshal(val, cty.DynamicPseudoType); err != nil {
			text = []byte(lang.Show(val))
		} else if plain, err := ctyjson.Marshal(val, val.Type()); err == nil && val.Type().IsPrimitiveType() {
			text = plain
		}
	}
	secret := ref.RootName() == "data" // which may contain unmarked secrets
	for _, v := range u.t.Variables {
		secret = secret || v.Sensitive && (len(ref) < 2 || refersTo(ref, v.Name))
	}
	u.add(Use{Name: shortName(ref), Text: string(text), Value: true, Secret: secret})
}

// refersTo reports whether a traversal, of var, may refer to a variable.
func refersTo(ref hcl.Traversal, name string) bool {
	if ref.RootName() != "var" {
		return false
	}
	switch step := ref[1].(type) {
	case hcl.TraverseAttr:
		return step.Name == name
	case hcl.TraverseIndex:
		return step.Key.Type() != cty.String || step.Key.AsString() == name
	}
	return true
}

// shortName formats a traversal for people.
func shortName(ref hcl.Traversal) string {
	var b strings.Builder
	for _, step := range ref {
		switch step := step.(type) {
		case hcl.TraverseRoot:
			b.WriteString(step.Name)
		case hcl.TraverseAttr:
			b.WriteString("." + step.Name)
		case hcl.TraverseIndex:
			if step.Key.Type() == cty.String {
				b.WriteString("." + step.Key.AsString())
			} else {
				b.WriteString("[" + lang.Show(step.Key) + "]")
			}
		}
	}
	return b.String()
}

// files adds what functions have read, of files and servers.
func (u *user) files(all []fileRead) {
	for _, f := range all {
		switch f.what {
		case lang.ReadRemote:
			u.add(Use{Name: f.what + " " + f.path, Text: f.digest, Secret: true})
		case lang.ReadFile:
			u.add(Use{Name: "file " + u.t.Relative(f.path), Text: f.digest})
		default:
			u.add(Use{Name: f.what + " " + u.t.Relative(f.path), Text: f.digest})
		}
	}
}

// Cwd returns the directory that relative paths start from.
func (t *Template) Cwd() string { return t.cwd }

// Relative returns a path relative to the directory of the template, with slashes,
// independent of the current directory.
func (t *Template) Relative(path string) string {
	abs := func(p string) string { return filepath.Clean(hostpath.In(t.cwd, p)) }
	rel, err := filepath.Rel(abs(filepath.FromSlash(t.Root)), abs(path))
	if err != nil {
		return filepath.ToSlash(path)
	}
	return filepath.ToSlash(rel)
}

// fileRead is what a function has read from a file or a server.
type fileRead struct{ what, path, digest string }

// reads collects what functions read.
type reads struct {
	mu   sync.Mutex
	open []*[]fileRead         // stack of recorders, of which the last one is active
	by   map[string][]fileRead // local values, by address
}

// note records what a function has read.
func (r *reads) note(what, path string, content []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.open) > 0 {
		sum := sha256.Sum256(content)
		last := r.open[len(r.open)-1]
		*last = append(*last, fileRead{what, path, hex.EncodeToString(sum[:])})
	}
}

// during runs do and returns what functions read meanwhile. Only one goroutine may call it
// at a time.
func (r *reads) during(do func()) (all []fileRead) {
	r.mu.Lock()
	r.open = append(r.open, &all)
	r.mu.Unlock()
	do()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = slices.DeleteFunc(r.open, func(l *[]fileRead) bool { return l == &all })
	return all
}

// keep records what was read for a local value.
func (r *reads) keep(address string, all []fileRead) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = map[string][]fileRead{}
	}
	r.by[address] = all
}

func (r *reads) of(address string) []fileRead {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.by[address]
}
