package bake_test

import (
	"go/ast"
	"go/token"
	"go/types"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// inert are the options that only their validation reads, as their documentation says.
var inert = map[string]string{
	"builder/amazon/internal/launch.Options.BlockDurationMinutes": "EC2 has no such spot instances any more",
	"builder/amazon/internal/launch.Options.SpotPriceAutoProduct": "EC2 needs no product any more",
	"builder/amazon/internal/launch.Options.TemporaryKeyPairBits": "EC2 makes the key, and takes no size",
	"builder/null.Options.SSHClearAuthorizedKeys":                 "there is no temporary key",
	"builder/null.Options.SSHKeyPairName":                         "there is no key pair",
	"builder/null.Options.TemporaryKeyPairBits":                   "there is no key pair",
	"builder/null.Options.TemporaryKeyPairName":                   "there is no key pair",
	"builder/null.Options.TemporaryKeyPairType":                   "there is no key pair",
	"postprocessor/provenance.Options.FulcioURL":                  "keyless signing is refused",
	"postprocessor/provenance.Options.KeylessIdentity":            "keyless signing is refused",
	"postprocessor/provenance.Options.KeylessOIDCIssuer":          "keyless signing is refused",
	"postprocessor/provenance.Options.RekorURL":                   "keyless signing is refused",
	"postprocessor/provenance.Options.SBOMScope":                  "what is scanned has no layers",
	"postprocessor/provenance.Options.TrustedRootPath":            "keyless signing is refused",
	"postprocessor/provenance.Options.UploadTlog":                 "keyless signing is refused",
	"provisioner/hcpsbom.Options.ElevatedPassword":                "no SBOM is made of Windows",
	"provisioner/hcpsbom.Options.ElevatedUser":                    "no SBOM is made of Windows",
	"provisioner/hcpsbom.Options.ScannerChecksum":                 "no scanner is downloaded",
	"provisioner/hcpsbom.Options.ScannerURL":                      "no scanner is downloaded",
	"provisioner/powershell.Options.Binary":                       "scripts are uploaded unchanged",
}

// elsewhere are the options whose values are used in ways that this test cannot detect.
var elsewhere = map[string]string{
	"builder/amazon/internal/launch.PolicyDocument.Statement": "it is sent with its policy, as JSON",
	"builder/amazon/internal/launch.PolicyDocument.Version":   "it is sent with its policy, as JSON",
	"builder/amazon/internal/launch.Statement.Action":         "it is sent with its policy, as JSON",
	"builder/amazon/internal/launch.Statement.Effect":         "it is sent with its policy, as JSON",
	"builder/amazon/internal/launch.Statement.Resource":       "it is sent with its policy, as JSON",
	"golden/bakefile.Image.ForEach":                           "config reads it, before the template is known",
	"golden/bakefile.Image.Vars":                              "config reads it, before the template is known",
	"golden/bakefile.Tool.RequiredVersion":                    "it is obeyed where it is checked",
	"provisioner/ansible.Options.SkipVersionCheck":            "it is obeyed where it is checked",
}

// TestOptionsAreRead: an option is read by more than its validation, or its documentation says
// that it has no effect.
func TestOptionsAreRead(t *testing.T) {
	documented := regexp.MustCompile(`(?i)no effect|without effect|not supported|makes no difference|\bignored\b`)
	options, read := optionsOf(t)
	if len(options) < 400 {
		t.Errorf("only %d options were found", len(options))
	}
	known := map[string]bool{}
	for field, o := range options {
		known[o.id] = true
		_, isInert := inert[o.id]
		_, isElsewhere := elsewhere[o.id]
		switch {
		case read[field] && (isInert || isElsewhere):
			t.Errorf("the option %s is read: it is no exception", o.id)
		case read[field] || isElsewhere:
		case !isInert:
			t.Errorf("nothing reads the option %s: make it work, or say in its comment that it has no effect, and warn or refuse", o.id)
		case !documented.MatchString(o.comment):
			t.Errorf("the comment of the option %s does not say that it has no effect", o.id)
		}
	}
	for _, exceptions := range []map[string]string{inert, elsewhere} {
		for id, why := range exceptions {
			if !known[id] {
				t.Errorf("there is no option %s, of which it is said that %s", id, why)
			}
		}
	}
}

// option is a field of a struct that represents a block.
type option struct {
	id      string // package.Struct.Field
	comment string
}

// optionsOf returns the options of all packages except those of the cloud, which has none, and the
// fields that are used outside of validations.
func optionsOf(t *testing.T) (map[*types.Var]option, map[*types.Var]bool) {
	t.Helper()
	syntax := map[string]*ast.File{}
	for _, s := range sources(t) {
		syntax[s.name] = s.syntax
	}
	u := uses{map[*types.Var]option{}, map[*types.Var][]*types.Func{}, map[*types.Func][]*types.Func{}, map[*types.Func]bool{}}
	c := newChecker(packages(t))
	for _, p := range packages(t) {
		dir, ok := p.dir()
		if !ok || dir == "cloud" || strings.HasPrefix(dir, "cloud/") {
			continue
		}
		var files []*ast.File
		for _, name := range p.GoFiles {
			files = append(files, syntax[path.Join(dir, name)])
		}
		info := &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}}
		if err := c.check(p.ImportPath, files, info); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			u.add(dir, f, info)
		}
	}
	u.spreadValidation()
	read := map[*types.Var]bool{}
	for field, readers := range u.readers {
		read[field] = slices.ContainsFunc(readers, func(f *types.Func) bool { return !u.validates[f] })
	}
	return u.options, read
}

// uses holds the declared options, and the functions that use fields and functions; nil represents
// code outside of functions.
type uses struct {
	options   map[*types.Var]option
	readers   map[*types.Var][]*types.Func
	callers   map[*types.Func][]*types.Func
	validates map[*types.Func]bool // functions of which nothing remains but diagnostics
}

// add adds the uses in a file of a directory.
func (u *uses) add(dir string, f *ast.File, info *types.Info) {
	for _, d := range f.Decls {
		name, within := dir, (*types.Func)(nil)
		if d, ok := d.(*ast.FuncDecl); ok {
			within = info.Defs[d.Name].(*types.Func)
			u.validates[within] = validates(d.Type)
		}
		unread := map[ast.Node]bool{} // selectors that take no value
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				name = dir + "." + n.Name.Name
			case *ast.StructType:
				for _, field := range n.Fields.List {
					if tag := tagOf(field); tag != "" && !strings.HasSuffix(tag, ",label") && len(field.Names) == 1 {
						id := field.Names[0]
						u.options[info.Defs[id].(*types.Var)] = option{name + "." + id.Name, field.Doc.Text()}
					}
				}
			case *ast.AssignStmt:
				for _, l := range n.Lhs {
					unread[l] = n.Tok == token.ASSIGN
				}
			case *ast.CallExpr:
				for _, a := range blamed(n) {
					unread[a] = true
				}
			case *ast.SelectorExpr:
				if s := info.Selections[n]; s != nil && s.Kind() == types.FieldVal && !unread[n] {
					field := s.Obj().(*types.Var).Origin()
					u.readers[field] = append(u.readers[field], within)
				}
			case *ast.Ident:
				if f, ok := info.Uses[n].(*types.Func); ok {
					u.callers[f.Origin()] = append(u.callers[f.Origin()], within)
				}
			}
			return true
		})
	}
}

// spreadValidation adds the functions that only validations use.
func (u *uses) spreadValidation() {
	for more := true; more; {
		more = false
		for f, callers := range u.callers {
			if !u.validates[f] && !slices.ContainsFunc(callers, func(c *types.Func) bool { return !u.validates[c] && c != f }) {
				u.validates[f], more = true, true
			}
		}
	}
}

// validates reports whether a function is part of a validation.
func validates(f *ast.FuncType) bool {
	return slices.ContainsFunc(f.Params.List, func(p *ast.Field) bool {
		star, ok := p.Type.(*ast.StarExpr)
		if !ok {
			return false
		}
		s, ok := star.X.(*ast.SelectorExpr)
		return ok && s.Sel.Name == "Checker"
	})
}

// blamed returns the fields whose addresses are arguments of a call only to name the option in an
// error.
func blamed(call *ast.CallExpr) (fields []ast.Node) {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Errorf", "Known", "Name", "Range", "Set"}, f.Sel.Name) {
		return nil
	}
	for _, a := range call.Args {
		if u, ok := a.(*ast.UnaryExpr); ok && u.Op == token.AND {
			fields = append(fields, u.X)
		}
	}
	return fields
}

func tagOf(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	return reflect.StructTag(unquoted(f.Tag)).Get("hcl")
}

func unquoted(l *ast.BasicLit) string {
	text, _ := strconv.Unquote(l.Value)
	return text
}
