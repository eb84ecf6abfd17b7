package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"bake/builder/amazon"
	"bake/config"
	"bake/run"
)

// templateFlags are the flags of every command that reads a template.
type templateFlags struct {
	vars, varFiles []string
	only, except   commaList
	configType     choice
	releases       bool // plugins that are no releases are ignored
}

func (f *templateFlags) register(flags *pflag.FlagSet) {
	f.registerVars(flags)
	flags.Var(&f.only, "only", "include only builds whose full name matches one of these comma-separated `globs`")
	flags.Var(&f.except, "except", "exclude builds and post-processors that match one of these comma-separated `globs`")
	f.configType.values = []string{"hcl2", "json"}
	flags.Var(&f.configType, "config-type", "`language` of a template on standard input; no effect when a template is named")
}

// registerVars is for commands that are not about single builds.
func (f *templateFlags) registerVars(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.vars, "var", nil, "set a variable of the template: `name=value`; repeatable")
	flags.StringArrayVar(&f.varFiles, "var-file", nil, "set variables from a `file`, *.hcl or *.json; repeatable")
}

// registerReleases is for commands that use plugins.
func (f *templateFlags) registerReleases(flags *pflag.FlagSet) {
	flags.BoolVar(&f.releases, "ignore-prerelease-plugins", false, "ignore installed plugins whose version ends in -dev")
}

// withoutEffect registers flags of Packer that have no counterpart here, so that existing
// command lines still work. Their help says that they have no effect.
func withoutEffect(flags *pflag.FlagSet, names ...string) {
	why := map[string]string{
		"use-sequential-evaluation": "no effect: each value is computed when it is needed, whatever the order",
		"skip-enforcement":          "no effect: there is no registry that enforces provisioners",
	}
	for _, n := range names {
		flags.Bool(n, false, why[n])
	}
}

// options returns the options for [config.Load].
func (f *templateFlags) options(p *program, command, path string) (config.Options, error) {
	for _, v := range f.vars {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return config.Options{}, usageError{fmt.Sprintf("-var %s: write it as name=value", v), command}
		}
	}
	if path == "-" {
		return config.Options{}, usageError{"a template on standard input would have to be a legacy JSON template, which is not supported; name a *.pkr.hcl file or a directory", command}
	}
	cwd, err := os.Getwd()
	if err != nil {
		return config.Options{}, fmt.Errorf("cannot determine the working directory: %w", err)
	}
	return config.Options{
		Path: path, Vars: f.vars, VarFiles: f.varFiles,
		Env: p.env, Cwd: cwd, Now: p.now(), Secrets: p.log.secrets, SecretsManager: amazon.Secrets(amazon.Cloud{Warn: p.warn}, p.env), Warn: p.warn,
	}, nil
}

// template returns [templateFlags.options] with the selected builds.
func (f *templateFlags) template(p *program, command, path string) (run.Template, error) {
	o, err := f.options(p, command, path)
	return run.Template{Options: o, Only: f.only, Except: f.except}, err
}

// commaList is a flag that can be given several times, each time with several
// values separated by commas.
type commaList []string

func (l *commaList) String() string { return strings.Join(*l, ",") }
func (l *commaList) Type() string   { return "list" }

func (l *commaList) Set(text string) error {
	for v := range strings.SplitSeq(text, ",") {
		if v = strings.TrimSpace(v); v != "" {
			*l = append(*l, v)
		}
	}
	return nil
}

// choice is a flag with a fixed set of values.
type choice struct {
	value  string
	values []string
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return "choice" }

func (c *choice) Set(text string) error {
	for _, v := range c.values {
		if v == text {
			c.value = v
			return nil
		}
	}
	return fmt.Errorf("must be one of %s", strings.Join(c.values, ", "))
}
