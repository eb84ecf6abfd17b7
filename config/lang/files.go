package lang

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"bake/internal/envvar"
	"bake/internal/hostpath"
	"bake/internal/limits"
)

func addFileFunctions(funcs map[string]function.Function, w World) {
	below := func(dir, path string) string { return hostpath.In(w.Cwd, hostpath.In(dir, path)) }
	// inTemplate is where file and its kin look; ~ is the home directory.
	inTemplate := func(path string) (string, error) {
		path, err := w.expand(path)
		return below(w.BaseDir, path), err
	}

	readInTemplate := func(p string) (path, text string, err error) {
		if path, err = inTemplate(p); err == nil {
			text, err = w.readText(path)
		}
		return path, text, w.rootTwice(p, err)
	}

	funcs["abspath"] = text1("path", func(p string) (string, error) { return filepath.ToSlash(filepath.Clean(below(w.Cwd, p))), nil })
	funcs["basename"] = text1("path", func(p string) (string, error) { return filepath.Base(p), nil })
	funcs["dirname"] = text1("path", func(p string) (string, error) { return filepath.Dir(p), nil })
	funcs["pathexpand"] = text1("path", w.expand)
	funcs["file"] = text1("path", func(p string) (string, error) {
		_, text, err := readInTemplate(p)
		return text, err
	})
	funcs["filebase64"] = text1("path", func(p string) (string, error) {
		b, err := w.readFile(below(w.Cwd, p))
		return base64.StdEncoding.EncodeToString(b), err
	})
	funcs["fileexists"] = function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}},
		Type:   function.StaticReturnType(cty.Bool),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			path, err := inTemplate(args[0].AsString())
			if err != nil {
				return cty.NilVal, err
			}
			info, err := os.Stat(path)
			w.read(ReadExists, path, strconv.AppendBool(nil, err == nil))
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return cty.False, nil
			case err != nil:
				return cty.NilVal, err
			case !info.Mode().IsRegular():
				return cty.NilVal, fmt.Errorf("%s is not a regular file", path)
			}
			return cty.True, nil
		},
	})
	funcs["fileset"] = function.New(&function.Spec{
		Params: []function.Parameter{{Name: "dir", Type: cty.String}, {Name: "pattern", Type: cty.String}},
		Type:   function.StaticReturnType(cty.Set(cty.String)),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			dir, pattern := below(w.BaseDir, args[0].AsString()), args[1].AsString()
			found, err := fileSet(dir, pattern)
			if err == nil {
				w.read(ReadSet, filepath.Join(dir, pattern), []byte(Show(found)))
			}
			return found, err
		},
	})
	// A file may use every function but templatefile itself, which would allow loops.
	inner := maps.Clone(funcs)
	funcs["templatefile"] = templateFile(readInTemplate, inner)
}

// rootTwice returns the error of reading the file at a path, with a hint if the path
// begins with the template's directory, to which it is relative anyway.
func (w World) rootTwice(path string, err error) error {
	root := filepath.ToSlash(filepath.Clean(w.BaseDir))
	if !errors.Is(err, fs.ErrNotExist) || filepath.IsAbs(path) || !strings.HasPrefix(filepath.ToSlash(filepath.Clean(path)), root+"/") {
		return err
	}
	return fmt.Errorf("%w; paths start at the directory of the template here, so leave out ${path.root}/", err)
}

// expand replaces a leading ~ by the home directory.
func (w World) expand(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "~")
	if !ok {
		return path, nil
	}
	if rest != "" && rest[0] != '/' && rest[0] != filepath.Separator {
		return "", errors.New("the home directory of another user is not supported; only ~ and ~/... are understood")
	}
	home := envvar.Home(w.Getenv)
	if home == "" {
		return "", errors.New("~ cannot be expanded: HOME is not set")
	}
	return filepath.Join(home, rest), nil
}

// Pipes holds what has been read from pipes of this process, such as those of a shell's
// <(command). An expression may be evaluated several times, and a pipe is read only once.
type Pipes struct {
	mu   sync.Mutex
	read map[string][]byte // by path
}

func (p *Pipes) once(path string) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b, ok := p.read[path]; ok {
		return b, nil
	}
	b, err := hostpath.Read(path, hostpath.Limit)
	if err == nil {
		if p.read == nil {
			p.read = map[string][]byte{}
		}
		p.read[path] = b
	}
	return b, err
}

// readFile reads a file, as [hostpath.Read] does.
func (w World) readFile(path string) (b []byte, err error) {
	if w.Pipes != nil && hostpath.OfProcess(path) {
		b, err = w.Pipes.once(path)
	} else {
		b, err = hostpath.Read(path, hostpath.Limit)
	}
	if err == nil {
		w.read(ReadFile, path, b)
	}
	return b, err
}

func (w World) readText(path string) (string, error) {
	b, err := w.readFile(path)
	if err != nil {
		return "", err
	}
	if !utf8.Valid(b) {
		return "", fmt.Errorf("%s is not UTF-8 text; filebase64 reads any file", path)
	}
	return string(b), nil
}

// fileSet returns the regular files that match pattern, relative to dir. The pattern
// is joined to dir as a path is: a slash at its start or end counts for nothing, and
// .. leads out of dir.
func fileSet(dir, pattern string) (cty.Value, error) {
	asked := pattern
	pattern = strings.Trim(path.Clean("./"+literalBang(filepath.ToSlash(pattern))), "/")
	root := dir
	for pattern == ".." || strings.HasPrefix(pattern, "../") {
		pattern = strings.TrimPrefix(strings.TrimPrefix(pattern, ".."), "/")
		root = filepath.Dir(root)
	}
	if !doublestar.ValidatePattern(pattern) {
		return cty.NilVal, function.NewArgErrorf(1, "%q is not a valid pattern", asked)
	}
	var names []cty.Value
	err := doublestar.GlobWalk(os.DirFS(root), pattern, func(found string, d fs.DirEntry) error {
		file := filepath.Join(root, found)
		info, err := os.Stat(file)
		if err != nil || !info.Mode().IsRegular() {
			return nil
		}
		name, err := filepath.Rel(dir, file)
		if err == nil {
			names = append(names, cty.StringVal(filepath.ToSlash(name)))
		}
		return err
	})
	if err != nil {
		return cty.NilVal, err
	}
	if len(names) == 0 {
		return cty.SetValEmpty(cty.String), nil
	}
	return cty.SetVal(names), nil
}

// literalBang keeps [! from negating a class of characters, which only [^ does here.
func literalBang(pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		b.WriteByte(pattern[i])
		switch {
		case pattern[i] == '\\' && i+1 < len(pattern):
			i++
			b.WriteByte(pattern[i])
		case pattern[i] == '[' && strings.HasPrefix(pattern[i+1:], "!"):
			b.WriteByte('\\')
		}
	}
	return b.String()
}

// templateFile renders a file as an HCL template that sees vars and nothing else.
// A file that is a single ${...} keeps that value's type.
func templateFile(read func(string) (path, text string, err error), funcs map[string]function.Function) function.Function {
	render := func(args []cty.Value) (cty.Value, error) {
		path, text, err := read(args[0].AsString())
		if err != nil {
			return cty.DynamicVal, function.NewArgError(0, err)
		}
		if err := limits.Source([]byte(text), limits.Template); err != nil {
			return cty.DynamicVal, function.NewArgErrorf(0, "%s: %s", path, err)
		}
		expr, diags := hclsyntax.ParseTemplate([]byte(text), path, hcl.InitialPos)
		if diags.HasErrors() {
			return cty.DynamicVal, function.NewArgError(0, diags)
		}
		if t := args[1].Type(); !t.IsObjectType() && !t.IsMapType() {
			return cty.DynamicVal, function.NewArgErrorf(1, "must be a map or object of what the file may use")
		}
		vars := args[1].AsValueMap()
		names := slices.Sorted(maps.Keys(vars))
		for _, name := range names {
			if !hclsyntax.ValidIdentifier(name) {
				return cty.DynamicVal, function.NewArgErrorf(1, "%q cannot be the name of a value: it must start with a letter and consist of letters, digits, - and _", name)
			}
		}
		for _, ref := range expr.Variables() {
			if _, ok := vars[ref.RootName()]; !ok {
				return cty.DynamicVal, function.NewArgErrorf(1, "%s:%d uses %q, which is not given.%s",
					path, ref.SourceRange().Start.Line, ref.RootName(), DidYouMean(ref.RootName(), names))
			}
		}
		val, diags := expr.Value(&hcl.EvalContext{Variables: vars, Functions: funcs})
		if diags.HasErrors() {
			for i, d := range diags {
				diags[i] = withoutStack(d)
			}
			return cty.DynamicVal, diags
		}
		return val, nil
	}
	return function.New(&function.Spec{
		Params: []function.Parameter{
			{Name: "path", Type: cty.String},
			{Name: "vars", Type: cty.DynamicPseudoType},
		},
		Type: func(args []cty.Value) (cty.Type, error) {
			if !args[0].IsKnown() || !args[1].IsWhollyKnown() {
				return cty.DynamicPseudoType, nil
			}
			val, err := render(args)
			return val.Type(), err
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if !args[1].IsWhollyKnown() {
				return cty.DynamicVal, nil
			}
			return render(args)
		},
	})
}
