// Package script has the common parts of provisioners and post-processors that run
// scripts: the source of the script, its environment, the meaning of its exit status,
// and the splitting of its output into lines.
package script

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"bake/internal/hostpath"
	"bake/internal/prose"
)

// Options are embedded in the options of a component that runs scripts.
type Options struct {
	// Commands to run as one script. Set exactly one of `inline`, `script` and `scripts`.
	Inline []string `hcl:"inline,optional,again"`

	// Path of a local script.
	Script string `hcl:"script,optional"`

	// Paths of local scripts, which run in this order until one fails.
	Scripts []string `hcl:"scripts,optional"`

	// Environment variables for the script, each as `NAME=value`. `PACKER_BUILD_NAME` (the
	// label of the source block), `PACKER_BUILDER_TYPE` and, if the builder serves files
	// over HTTP, `PACKER_HTTP_ADDR`, `PACKER_HTTP_IP` and `PACKER_HTTP_PORT` are always
	// set.
	EnvironmentVars []string `hcl:"environment_vars,optional,again"`

	// Environment variables for the script, by name. They override `environment_vars`.
	Env map[string]string `hcl:"env,optional,again"`

	// Exit codes that mean success. Not set: `[0]`.
	ValidExitCodes []int `hcl:"valid_exit_codes,optional"`
}

// Reads implements [bake/config/schema.Reader].
func (o *Options) Reads() []string { return append([]string{o.Script}, o.Scripts...) }

// Problem is an error in the option at Field, a pointer into the options.
type Problem struct {
	Field           any
	Summary, Detail string
}

// Problems returns the errors in the options. known reports whether an option's value is
// known yet.
func (o *Options) Problems(known func(field any) bool) (found []Problem) {
	add := func(field any, summary, format string, args ...any) {
		found = append(found, Problem{field, summary, prose.Sprintf(format, args...)})
	}
	switch inline, one, many := len(o.Inline) > 0, o.Script != "", len(o.Scripts) > 0; {
	case one && many:
		add(&o.Scripts, "Two kinds of script", "Set script or scripts, not both.")
	case inline && one:
		add(&o.Script, "Two kinds of script", "Set inline or script, not both.")
	case inline && many:
		add(&o.Scripts, "Two kinds of script", "Set inline or scripts, not both.")
	case !known(&o.Inline) || !known(&o.Script) || !known(&o.Scripts):
	case !inline && !one && !many: // an empty list is not set
		add(&o.Inline, "No script", "Set one of inline, script and scripts: there is nothing to run.")
	}
	if o.Script != "" {
		if err := readable(o.Script); err != nil {
			add(&o.Script, "Script not found", "%s.", err)
		}
	}
	for _, path := range o.Scripts {
		if err := readable(path); err != nil {
			add(&o.Scripts, "Script not found", "%s.", err)
		}
	}
	if _, err := parse(o.EnvironmentVars); err != nil {
		add(&o.EnvironmentVars, "Not an environment variable", "%s.", err)
	}
	if _, empty := o.Env[""]; empty {
		add(&o.Env, "Not an environment variable", "The name of a variable cannot be empty.")
	}
	return found
}

func readable(path string) error {
	err := hostpath.Check(path)
	if errors.Is(err, os.ErrNotExist) {
		return errors.New(prose.Missing("file", path))
	}
	return err
}

// maxSize is the maximum size of a script. Installers can carry what they install.
const maxSize = 1 << 30

// Read returns the text of a local script.
func Read(path string) ([]byte, error) { return hostpath.Read(path, maxSize) }

// Paths returns the local scripts; none if the script is inline.
func (o *Options) Paths() []string {
	if o.Script != "" {
		return []string{o.Script}
	}
	return o.Scripts
}

// parse reads NAME=value assignments; the last one of a name counts.
func parse(list []string) (map[string]string, error) {
	vars := map[string]string{}
	for _, assignment := range list {
		name, value, ok := strings.Cut(assignment, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not of the form NAME=value", assignment)
		}
		vars[name] = value
	}
	return vars, nil
}

// Render expands the {{ }} of an option when it is used.
type Render func(text string) (string, error)

// Lines returns the lines of the inline script.
func (o *Options) Lines(render Render) ([]string, error) {
	lines := make([]string, len(o.Inline))
	for i, text := range o.Inline {
		var err error
		if lines[i], err = render(text); err != nil {
			return nil, fmt.Errorf("inline: %w", err)
		}
	}
	return lines, nil
}

// Vars returns the environment of the script. data are the values of build.*.
func (o *Options) Vars(render Render, buildName, builderType string, data map[string]any) (map[string]string, error) {
	vars := map[string]string{"PACKER_BUILD_NAME": buildName, "PACKER_BUILDER_TYPE": builderType}
	for name, key := range map[string]string{
		"PACKER_HTTP_ADDR": "PackerHTTPAddr", "PACKER_HTTP_IP": "PackerHTTPIP", "PACKER_HTTP_PORT": "PackerHTTPPort",
	} {
		v := fmt.Sprint(data[key])
		if data[key] != nil && v != "" && v != "<unknown>" && !strings.HasPrefix(v, "ERR_") {
			vars[name] = v
		}
	}
	list := make([]string, len(o.EnvironmentVars))
	for i, text := range o.EnvironmentVars {
		var err error
		if list[i], err = render(text); err != nil {
			return nil, fmt.Errorf("environment_vars: %w", err)
		}
	}
	parsed, err := parse(list)
	if err != nil {
		return nil, fmt.Errorf("environment_vars: %w", err)
	}
	maps.Copy(vars, parsed)
	for name, text := range o.Env {
		if vars[name], err = render(text); err != nil {
			return nil, fmt.Errorf("env: %w", err)
		}
	}
	return vars, nil
}

// Quote escapes a value for single quotes in a POSIX shell.
func Quote(value string) string { return strings.ReplaceAll(value, "'", `'"'"'`) }

// Assign formats variables by name, each with format, which has one %s for the
// name and one for the value.
func Assign(format string, vars map[string]string, quote func(string) string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		fmt.Fprintf(&b, format, name, quote(vars[name]))
	}
	return b.String()
}

// CheckFormat reports a format that [Assign] cannot use.
func CheckFormat(format string) error {
	if got := fmt.Sprintf(format, "NAME", "value"); strings.Contains(got, "%!") {
		return fmt.Errorf("%q must contain two %%s, the first for the name and the second for the value", format)
	}
	return nil
}

// CheckExit returns an error for an exit status that does not mean success.
func (o *Options) CheckExit(code int) error {
	valid := o.ValidExitCodes
	if len(valid) == 0 {
		valid = []int{0}
	}
	if slices.Contains(valid, code) {
		return nil
	}
	return fmt.Errorf("Script exited with non-zero exit status: %d. Allowed exit codes are: %v", code, valid) //nolint:staticcheck // the text that users search for
}

// Text joins lines to a script that shebang's interpreter runs.
func Text(shebang string, lines []string) string {
	return "#!" + shebang + "\n" + strings.Join(lines, "\n") + "\n"
}
