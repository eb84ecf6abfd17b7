package file

import (
	"errors"
	"os"
	"strings"

	"bake/config/schema"
	"bake/internal/hostpath"
	"bake/internal/prose"
)

// Options are the arguments of a file provisioner.
type Options struct {
	// File or directory to copy. If a local directory ends in `/`, its contents are copied
	// instead of the directory itself. To download a directory, end its name with `/`; it is
	// copied as a whole. Paths to download can contain the wildcards `*`, `?` and `[`. In
	// paths on the machine, its shell expands `~` at the start and `$NAME`.
	Source string `hcl:"source,optional,again"`

	// Additional files and directories to copy, before `source`.
	Sources []string `hcl:"sources,optional,again"`

	// Text to write to a file on the machine, instead of copying a source. Only the owner
	// can read that file.
	Content *string `hcl:"content,optional"`

	// Path to copy to. If it ends in `/`, it is a directory, and files are copied into it under
	// their own names. A directory is copied into an existing destination, with or without the
	// `/`; if the destination does not exist, the copy gets its name. The parent directory must
	// exist on the machine; on this computer it is created. Uploads run as the login user: to
	// write elsewhere, give the files an owner in a bake file (docs/bake-files.md), or upload to
	// /tmp and move the file with sudo in a shell provisioner.
	Destination string `hcl:"destination,again"`

	// `upload` to the machine, or `download` from it.
	Direction Direction `hcl:"direction,optional"`

	// Do not check in advance that the sources exist, because an earlier step creates
	// them.
	Generated bool `hcl:"generated,optional"`
}

// Reads implements [schema.Reader]. Files that an earlier step makes do not exist yet.
func (o *Options) Reads() []string {
	if o.Direction == Download || o.Generated {
		return nil
	}
	return append([]string{o.Source}, o.Sources...)
}

func defaults() Options { return Options{Direction: Upload} }

// Direction is the direction of a copy.
type Direction string

// The directions.
const (
	Upload   Direction = "upload"
	Download Direction = "download"
)

// Choices implements [schema.Choices].
func (Direction) Choices() []string { return []string{string(Upload), string(Download)} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Direction) UnmarshalText(b []byte) error { return schema.ParseChoice(d, b, d.Choices()) }

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	sources := o.Source != "" || len(o.Sources) > 0
	content := c.Set(&o.Content) && (o.Content == nil || *o.Content != "" || !sources) // empty content together with a source counts as not set
	switch {
	case content && sources:
		c.Errorf(&o.Content, "Content and source", "Set content, or source and sources, but not both.")
	case content && o.Direction == Download:
		c.Errorf(&o.Content, "Content to download", `content is for uploads; it cannot be used with direction = "download".`)
	case !content && !sources && c.Known(&o.Sources):
		c.Errorf(&o.Source, "Nothing to copy", "Set one of source, sources and content.")
	}
	if o.Destination == "" {
		c.Errorf(&o.Destination, "No destination", "destination cannot be empty.")
	}
	if o.Direction == Download || o.Generated {
		return
	}
	if o.Source != "" {
		o.checkSource(c, &o.Source, o.Source)
	}
	for _, path := range o.Sources {
		o.checkSource(c, &o.Sources, path)
	}
}

func (o *Options) checkSource(c *schema.Checker, field any, path string) {
	if strings.Contains(path, "{{") {
		return // known only when it is used
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		c.Errorf(field, "Source not found", "%s. If something makes it during the build, set generated = true.", prose.Missing("file", path))
	case err != nil:
		c.Errorf(field, "Source not readable", "%s.", err)
	case endsInSeparator(path) && !info.IsDir():
		c.Errorf(field, "Not a directory", "%q ends in / but is a file.", path)
	case !info.IsDir():
		if err := hostpath.Check(path); err != nil {
			c.Errorf(field, "Source not readable", "%s.", err)
		}
	}
}
