package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"bake/config"
	"bake/config/lang"
	"bake/golden/bakefile"
	"bake/internal/hostpath"
)

// Template is a template with its fleets.
type Template struct {
	Fleets  []*Fleet
	Files   map[string]*hcl.File // files that diagnostics refer to
	Reports string               // the place for reports that the bake block names; empty: none

	options config.Options
	images  []config.ImageOf
	loaded  *config.Template // for none of the images
}

// mostCells is the maximum number of cells in a fleet.
const mostCells = 10_000

// Load reads the fleets of a template. Their blocks must be known without data sources. If
// the template has data sources, o must still have their components.
func Load(ctx context.Context, o config.Options) (*Template, hcl.Diagnostics) {
	out := &Template{options: o}
	images, diags := config.ReadImages(ctx, o)
	if diags.HasErrors() {
		out.Files = images.Files
		return out, diags
	}
	out.images = images.All
	o.Instance, o.AllowUnset, o.ReadData = &config.Instance{}, true, false // none of the images
	loaded, diags := config.Load(ctx, o)
	out.Files, out.loaded = loaded.Files(), loaded
	if diags.HasErrors() {
		return out, diags
	}
	settings, diags := bakefile.Check(ctx, loaded)
	out.Reports, _ = settings.Reports()
	for _, f := range settings.Fleets() {
		diags = append(diags, f.Src.Unknowns()...)
		one, more := out.fleet(f)
		diags = append(diags, more...)
		one.Dir, one.Engine = directory(o), temporal(settings.Engine())
		out.Fleets = append(out.Fleets, one)
	}
	diags = lang.AppendNew(diags, out.checkDuplicates(ctx))
	for _, f := range out.Fleets {
		for _, one := range out.Fleets {
			f.Fleets = append(f.Fleets, one.Name)
		}
	}
	return out, diags
}

// checkDuplicates reports images of the fleets that two cells would distribute to the same
// region. The inputs of each image come from the template as loaded for that image.
func (t *Template) checkDuplicates(ctx context.Context) (diags hcl.Diagnostics) {
	among := map[string]bool{}
	for _, f := range t.Fleets {
		for _, c := range f.Cells {
			among[c.Image] = true
		}
	}
	for _, i := range t.images {
		if i.Image != "" && among[i.Name()] {
			settings, _ := bakefile.Check(ctx, t.loaded.For(i.Instance)) // other errors are reported when the image is baked
			diags = lang.AppendNew(diags, settings.DuplicateRegions())
		}
	}
	return diags
}

// Copies returns the regions that the image of a cell is copied to, as far as the template
// defines them before anything is baked.
func (t *Template) Copies(ctx context.Context, c Cell) []string {
	for _, i := range t.images {
		if i.Image != "" && i.Name() == c.Image {
			settings, _ := bakefile.Check(ctx, t.loaded.For(i.Instance)) // the errors have been reported
			return settings.Copies(ctx, i.Image)
		}
	}
	return nil // it is no longer in the template
}

// directory returns the directory of the template, with the same name for every form of
// the path.
func directory(o config.Options) string {
	path := hostpath.In(o.Cwd, o.Path)
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		path = filepath.Dir(path)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return filepath.Clean(path)
}

// Fleet returns the fleet of that name or, if the name is empty, the only fleet.
func (t *Template) Fleet(name string) (*Fleet, error) {
	var names []string
	for _, f := range t.Fleets {
		if f.Name == name || name == "" && len(t.Fleets) == 1 {
			return f, nil
		}
		names = append(names, f.Name)
	}
	switch {
	case len(names) == 0:
		return nil, fmt.Errorf("the template has no fleet; write a fleet block into a *.bake.hcl file beside it")
	case name == "":
		return nil, fmt.Errorf("the template has several fleets; name one of them: %s", strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("the template has no fleet %q; it has: %s", name, strings.Join(names, ", "))
}

// Cell finds a cell by IMAGE/ACCOUNT/REGION, with the fleet before it if there are several.
func (t *Template) Cell(name string) (*Fleet, Cell, error) {
	var found []*Fleet
	var cell Cell
	name = strings.TrimPrefix(name, "bake/")
	for _, f := range t.Fleets {
		if c, ok := f.Cell(strings.TrimPrefix(name, f.Name+"/")); ok {
			found, cell = append(found, f), c
		}
	}
	switch {
	case len(found) == 1:
		return found[0], cell, nil
	case len(found) > 1:
		return nil, cell, fmt.Errorf("several fleets have a cell %s; write the fleet before it, as in %s/%s", name, found[0].Name, name)
	}
	_, err := t.Fleet("")
	if len(t.Fleets) > 0 {
		err = fmt.Errorf("no fleet has a cell %q; a cell is IMAGE/ACCOUNT/REGION, as 'bake fleet status' lists them", name)
	}
	return nil, cell, err
}

// Instance returns the image of a cell as the template is loaded for it, with its parents.
func (t *Template) Instance(c Cell, parents []Outcome) (config.Instance, error) {
	for _, i := range t.images {
		if i.Name() == c.Image {
			i.Known = builtBy(parents)
			return i.Instance, nil
		}
	}
	return config.Instance{}, fmt.Errorf("the template has no image %q any more", c.Image)
}

func (t *Template) fleet(b bakefile.FleetBlock) (*Fleet, hcl.Diagnostics) {
	o := b.Options
	f := &Fleet{Name: b.Name, Limits: limits(o.Limits)}
	if s := o.Schedule; s != nil {
		f.Schedule = &Schedule{Cron: s.Cron, Timezone: s.Timezone, Jitter: s.Jitter, Overlap: string(s.Overlap), CatchUp: s.CatchUp, PauseAfterFailures: s.PauseAfterFailures}
	}
	for _, n := range o.Notify {
		f.Notify = append(f.Notify, Webhook{On: n.On, URL: n.URL, Headers: n.Headers, Timeout: n.Timeout})
	}
	if o.Matrix == nil {
		return f, nil // already reported
	}
	images, diags := t.chosen(b)
	if n := len(images) * len(o.Matrix.Account) * len(o.Matrix.Region); n > mostCells {
		at := b.Block.DefRange
		return f, append(diags, problem(&at, "Too many cells", "The fleet has %d cells, and can have %d at most. Make several fleets of it.", n, mostCells))
	}
	for _, i := range images {
		for _, account := range o.Matrix.Account {
			for _, region := range o.Matrix.Region {
				c := Cell{Fleet: f.Name, Image: i.Name(), Account: account, Region: region, Role: b.Role(account, region)}
				for _, p := range images { // sorted, so that the order is always the same
					if _, needed := i.Needs[p.Name()]; needed {
						c.Needs = append(c.Needs, Cell{Fleet: f.Name, Image: p.Name(), Account: account, Region: region}.ID())
					}
				}
				f.Cells = append(f.Cells, c)
			}
		}
	}
	return f, diags
}

// chosen returns the images of a fleet, each after the images that it refers to, which
// must also be in the fleet.
func (t *Template) chosen(b bakefile.FleetBlock) (images []config.ImageOf, diags hcl.Diagnostics) {
	at := map[string]hcl.Range{}
	for _, ref := range b.Images {
		found := false
		var known []string
		for _, i := range t.images {
			if i.Image != ref.Label {
				continue
			}
			known = append(known, "image."+i.Address())
			if !ref.Keyed || i.Key == ref.Key {
				found, at[i.Name()] = true, ref.At
			}
		}
		if !found && len(known) > 0 {
			diags = append(diags, problem(&ref.At, "No such image", "There is no %s. There are: %s.", ref, strings.Join(known, ", ")))
		}
	}
	for _, i := range t.images {
		if _, ok := at[i.Name()]; ok && i.Image != "" {
			images = append(images, i)
		}
	}
	for _, i := range images {
		for _, p := range t.images {
			_, needed := i.Needs[p.Name()]
			if _, there := at[p.Name()]; needed && !there {
				where := at[i.Name()]
				diags = append(diags, problem(&where, "Missing parent", "The image %s refers to %s, which the fleet does not have. Add image.%s to images.", i.Address(), p.Address(), p.Address()))
			}
		}
	}
	return images, diags
}

func problem(at *hcl.Range, summary, format string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: at}
}

func limits(l *bakefile.FleetLimits) Limits {
	if l == nil {
		l = new(bakefile.FleetLimits)
		l.SetDefaults()
	}
	return Limits{Parallel: l.Parallel, PerAccount: l.PerAccount, APIRate: l.APIRate}
}

func temporal(e *bakefile.Engine) *Temporal {
	if e == nil {
		return nil
	}
	t := &Temporal{Address: e.Address, Namespace: e.Namespace}
	if t.Namespace == "" {
		t.Namespace = "default"
	}
	if s := e.TLS; s != nil {
		t.TLS = &TLS{CAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile, ServerName: s.ServerName}
	}
	return t
}

// Accounts returns the accounts of the fleet, in order, without duplicates.
func (f *Fleet) Accounts() (all []string) {
	for _, c := range f.Cells {
		if !slices.Contains(all, c.Account) {
			all = append(all, c.Account)
		}
	}
	return all
}
