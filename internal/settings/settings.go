// Package settings reads the file with a user's settings for all templates: its values
// apply to environment variables that are not set.
package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"bake/internal/bytesize"
	"bake/internal/prose"
)

// setting is an attribute of the file.
type setting struct {
	name, variable string
	value          func(v cty.Value, home string) (string, error) // value for the variable; empty: not set
}

// all returns the settings.
func all() []setting {
	return []setting{
		{"mirror", "BAKE_MIRROR", texts},
		{"plugin_mirror", "BAKE_PLUGIN_MIRROR", place},
		{"state_dir", "BAKE_STATE_DIR", directory},
		{"cloud_dir", "BAKE_CLOUD_DIR", directory},
		{"allow_egress", "BAKE_ALLOW_EGRESS", texts},
		{"cloud_init_timeout", "BAKE_CLOUD_INIT_TIMEOUT", duration},
		{"cache_limit", "BAKE_CACHE_LIMIT", size},
		{"exit_codes", "BAKE_EXIT_CODES", exitCodes},
		{"color", "PACKER_NO_COLOR", color},
	}
}

// limit is the maximum size of the file.
const limit = 1 << 20

// Load returns the settings of a file as variables, "NAME=value", and the file as
// diagnostics refer to it. A missing file has no settings; if it must exist, that is an
// error. A "~/" at the start of a path is replaced by the directory home.
func Load(name string, must bool, home string) (env []string, files map[string]*hcl.File, diags hcl.Diagnostics) {
	text, err := read(name)
	if (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)) && !must { // the home of a system user may be /dev/null
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Cannot read the settings", Detail: prose.Sprintf("%s.", err)}}
	}
	file, diags := hclsyntax.ParseConfig(text, name, hcl.InitialPos)
	files = map[string]*hcl.File{name: file}
	if diags.HasErrors() {
		return nil, files, diags
	}
	attributes, diags := file.Body.JustAttributes()
	settings := all()
	for _, s := range settings {
		a, ok := attributes[s.name]
		if !ok {
			continue
		}
		delete(attributes, s.name)
		v, wrong := a.Expr.Value(nil)
		diags = append(diags, wrong...)
		if wrong.HasErrors() || v.IsNull() {
			continue
		}
		value, err := s.value(v, home)
		if err != nil {
			diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Invalid setting", Detail: prose.Sprintf("%s: %s.", s.name, err), Subject: a.Expr.Range().Ptr()})
		} else if value != "" {
			env = append(env, s.variable+"="+value)
		}
	}
	for _, a := range attributes {
		diags = append(diags, unknown(a, settings))
	}
	sort.SliceStable(diags, func(i, j int) bool { return position(diags[i]) < position(diags[j]) })
	return env, files, diags
}

// position returns the location in the file that a diagnostic is about.
func position(d *hcl.Diagnostic) int {
	if d.Subject == nil {
		return 0
	}
	return d.Subject.Start.Byte
}

// read returns the text of a regular file, with a limit on its size.
func read(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is not a file of at most 1 MB", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// unknown reports an unknown setting, and suggests the one that was probably meant.
func unknown(a *hcl.Attribute, settings []setting) *hcl.Diagnostic {
	names := make([]string, len(settings))
	near, distance := "", 4
	for i, s := range settings {
		names[i] = s.name
		if d := levenshtein.Distance(a.Name, s.name, nil); d < distance {
			near, distance = s.name, d
		}
	}
	detail := "Settings are " + strings.Join(names, ", ") + "."
	if near != "" {
		detail = fmt.Sprintf("Did you mean %q? ", near) + detail
	}
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Unknown setting", Detail: fmt.Sprintf("There is no setting %q. %s", a.Name, detail), Subject: a.NameRange.Ptr()}
}

func text(v cty.Value) (string, error) {
	if v.Type() != cty.String {
		return "", fmt.Errorf("a text in quotes is wanted, not %s", v.Type().FriendlyName())
	}
	return v.AsString(), nil
}

// texts converts one text, or a list of texts.
func texts(v cty.Value, _ string) (string, error) {
	if v.Type() == cty.String {
		return v.AsString(), nil
	}
	list, err := convert.Convert(v, cty.List(cty.String))
	if err != nil {
		return "", errors.New("a text, or a list of texts, is wanted")
	}
	var parts []string
	for _, e := range list.AsValueSlice() {
		if e.IsNull() || e.AsString() == "" || strings.Contains(e.AsString(), ",") {
			return "", errors.New("each entry of the list is one text, without a comma")
		}
		parts = append(parts, e.AsString())
	}
	return strings.Join(parts, ","), nil
}

// directory must be an absolute path, since the file applies wherever bake is started.
func directory(v cty.Value, home string) (string, error) {
	s, err := text(v)
	if rest, ok := strings.CutPrefix(s, "~/"); ok && home != "" {
		s = filepath.Join(home, rest)
	}
	if err == nil && s != "" && !filepath.IsAbs(s) {
		err = fmt.Errorf("%q is not an absolute path, nor one that begins with ~/", s)
	}
	return s, err
}

// place is a URL or a directory.
func place(v cty.Value, home string) (string, error) {
	if s, err := text(v); err != nil || strings.Contains(s, "://") {
		return s, err
	}
	return directory(v, home)
}

func duration(v cty.Value, _ string) (string, error) {
	s, err := text(v)
	if err != nil {
		return "", err
	}
	if d, err := time.ParseDuration(s); err != nil || d < 0 {
		return "", fmt.Errorf("%s is not a duration such as \"10m\", or \"0\"", strconv.Quote(s))
	}
	return s, nil
}

func size(v cty.Value, _ string) (string, error) {
	s, err := text(v)
	if err == nil && s != "" {
		_, err = bytesize.Parse(s)
	}
	return s, err
}

func exitCodes(v cty.Value, _ string) (string, error) {
	s, err := text(v)
	if err == nil && s != "packer" && s != "bake" {
		err = fmt.Errorf("%q is neither \"bake\" nor \"packer\"", s)
	}
	return s, err
}

// color = false sets the variable that turns colors off.
func color(v cty.Value, _ string) (string, error) {
	if v.Type() != cty.Bool {
		return "", errors.New("true or false is wanted")
	}
	if v.True() {
		return "", nil
	}
	return "1", nil
}
