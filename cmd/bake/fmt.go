package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"bake/cloud/durable"
	"bake/config/format"
)

// errUnformatted is the error of fmt -check when a file is not in the canonical layout.
var errUnformatted = errors.New("not formatted")

// fmtOptions are the flags of bake fmt.
type fmtOptions struct{ check, diff, write, recursive bool }

func (p *program) fmtCommand() *cobra.Command {
	var o fmtOptions
	cmd := &cobra.Command{
		Use:   "fmt PATH...",
		Short: "Rewrite templates in the canonical layout",
		Long: `Rewrite templates (*.pkr.hcl) and variable files (*.pkrvars.hcl) in the canonical
layout of HCL, which differs from what was written in white space only, and print
the name of each file that changed.

PATH is a file, a directory whose files are taken (not those whose names start with
a dot, end with ~, or start and end with #), or - for standard input, which is then
written to standard output. A file that is no HCL is left alone and reported; the
others are done all the same.`,
		Example: `  bake fmt .
  bake fmt -check -diff -recursive images
  bake fmt - <template.pkr.hcl`,
		Annotations: map[string]string{exitCodes: `0    done
1    a file could not be read, written or understood
3    with -check: a file is not in the canonical layout`},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{"bake fmt needs a file, a directory, or - for standard input", cmd.CommandPath()}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return p.format(args, o) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.check, "check", false, "change nothing; exit with 3 if a file is not in the canonical layout")
	flags.BoolVar(&o.diff, "diff", false, "show what changes, as a unified diff")
	flags.BoolVar(&o.write, "write", true, "write the files that change")
	flags.BoolVar(&o.recursive, "recursive", false, "take the files in directories below a directory too")
	return cmd
}

func (p *program) format(paths []string, o fmtOptions) error {
	changed := false
	var errs []error
	for _, path := range paths {
		if path == "-" {
			c, err := p.formatInput(o)
			changed, errs = changed || c, append(errs, err)
			continue
		}
		names, err := format.Files(path, o.recursive)
		errs = append(errs, err)
		for _, name := range names {
			c, err := p.formatFile(name, o)
			changed, errs = changed || c, append(errs, err)
		}
	}
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

// formatInput formats what standard input holds.
func (p *program) formatInput(o fmtOptions) (changed bool, err error) {
	src, err := io.ReadAll(p.stdin)
	if err != nil {
		return false, fmt.Errorf("standard input: %w", err)
	}
	out, err := formatted("<stdin>", src)
	if err != nil {
		return false, err
	}
	changed = !bytes.Equal(src, out)
	switch {
	case o.diff && changed:
		p.say(strings.TrimSuffix(format.Diff("<stdin>", src, out), "\n"))
	case !o.diff && !o.check:
		_, err = p.stdout.Write(out)
	}
	return changed, err
}

// formatFile formats one file, and says so if that changes it.
func (p *program) formatFile(name string, o fmtOptions) (changed bool, err error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return false, err
	}
	out, err := formatted(name, src)
	if err != nil || bytes.Equal(src, out) {
		return false, err
	}
	if o.write && !o.check {
		if err := rewrite(name, out); err != nil {
			return true, err
		}
	}
	p.say(name)
	if o.diff {
		p.say(strings.TrimSuffix(format.Diff(name, src, out), "\n"))
	}
	return true, nil
}

// formatted is [format.Source] with an error that [program.report] shows.
func formatted(name string, src []byte) ([]byte, error) {
	out, diags := format.Source(name, src)
	if diags.HasErrors() {
		return nil, &templateError{diags, map[string]*hcl.File{name: {Bytes: src}}}
	}
	return out, nil
}

// rewrite replaces what the file holds, or the file that it links to, at once. The
// file must be one that could be written to, and keeps its mode and owner.
func rewrite(name string, data []byte) error {
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := durable.Replace(name, data, info.Mode().Perm()); err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return os.Chown(name, int(owner.Uid), int(owner.Gid))
	}
	return nil
}
