package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"bake/config"
	"bake/config/format"
	"bake/internal/hostpath"
	"bake/internal/wholefile"
)

// errUnformatted is the error of fmt -check when a file is not in the canonical format.
var errUnformatted = errors.New("not formatted")

// fmtOptions are the flags of bake fmt.
type fmtOptions struct{ check, diff, write, recursive bool }

func (p *program) fmtCommand() *cobra.Command {
	var o fmtOptions
	cmd := &cobra.Command{
		Use:   "fmt PATH...",
		Short: "Rewrite templates in the canonical format",
		Long: `Rewrite templates (*.pkr.hcl), variable files (*.pkrvars.hcl) and bake files
(*.bake.hcl) in HCL's canonical format, which changes white space only, and print the
name of each file that changed.

PATH is a file, a directory, or - to read standard input and write standard output.
In a directory, files whose names start with a dot, end with ~, or start and end with
# are skipped. A file that is not valid HCL is reported and left alone; the others are
still formatted.`,
		Example: `  bake fmt .
  bake fmt -check -diff -recursive images
  bake fmt - <template.pkr.hcl`,
		Annotations: map[string]string{exitCodes: `0    done
1    a file could not be read, parsed or written
3    with -check: a file is not in the canonical format`},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{"bake fmt needs a file, a directory, or - for standard input", cmd.CommandPath()}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return p.format(args, o) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.check, "check", false, "change nothing; exit with code 3 if a file is not in the canonical format")
	flags.BoolVar(&o.diff, "diff", false, "show the changes as a unified diff")
	flags.BoolVar(&o.write, "write", true, "do not write the changes to the files")
	flags.BoolVar(&o.recursive, "recursive", false, "include subdirectories")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) format(paths []string, o fmtOptions) error {
	changed := false
	var errs []error
	files := []formattedFile{}
	take := func(f formattedFile, err error) {
		changed, errs = changed || f.Changed, append(errs, err)
		if err == nil {
			files = append(files, f)
		}
	}
	for _, path := range paths {
		if path == "-" {
			take(p.formatInput(o))
			continue
		}
		names, err := format.Files(path, o.recursive)
		errs = append(errs, err)
		for _, name := range names {
			take(p.formatFile(name, o))
		}
	}
	p.json.result = struct {
		Files []formattedFile `json:"files"`
	}{files}
	// Each is shown with its own file, so they are not one error.
	failed := false
	for _, err := range errs {
		p.report(err)
		failed = failed || err != nil
	}
	switch {
	case failed:
		return errReported
	case o.check && changed:
		return errUnformatted
	}
	return nil
}

// formattedFile is a file that has been looked at.
type formattedFile struct {
	Name    string `json:"name"`
	Changed bool   `json:"changed"`        // its layout was not the canonical one
	Diff    string `json:"diff,omitempty"` // with -diff
	Text    string `json:"text,omitempty"` // of standard input, in the canonical layout
}

// formatInput formats standard input.
func (p *program) formatInput(o fmtOptions) (formattedFile, error) {
	f := formattedFile{Name: "<stdin>"}
	src, err := io.ReadAll(p.stdin)
	if err != nil {
		return f, fmt.Errorf("standard input: %w", err)
	}
	out, err := formatted(f.Name, src)
	if err != nil {
		return f, err
	}
	f.Changed = !bytes.Equal(src, out)
	switch {
	case o.diff && f.Changed:
		f.Diff = format.Diff(f.Name, src, out)
		p.say(strings.TrimSuffix(f.Diff, "\n"))
	case !o.diff && !o.check && p.json.on:
		f.Text = string(out)
	case !o.diff && !o.check:
		_, err = p.stdout.Write(out)
	}
	return f, err
}

// formatFile formats one file, and reports whether that changes it.
func (p *program) formatFile(name string, o fmtOptions) (formattedFile, error) {
	f := formattedFile{Name: name}
	src, err := hostpath.Read(name, hostpath.Limit)
	if err != nil {
		return f, err
	}
	out, err := formatted(name, src)
	if err != nil || bytes.Equal(src, out) {
		return f, err
	}
	f.Changed = true
	if o.write && !o.check {
		if err := wholefile.Rewrite(name, out); err != nil {
			return f, err
		}
	}
	p.say(name)
	if o.diff {
		f.Diff = format.Diff(name, src, out)
		p.say(strings.TrimSuffix(f.Diff, "\n"))
	}
	return f, nil
}

// formatted is [format.Source] with an error that [program.report] shows.
func formatted(name string, src []byte) ([]byte, error) {
	out, diags := format.Source(name, src)
	if diags.HasErrors() {
		return nil, &templateError{Diags: config.LimitSyntaxErrors(diags), Files: map[string]*hcl.File{name: {Bytes: src}}}
	}
	return out, nil
}
