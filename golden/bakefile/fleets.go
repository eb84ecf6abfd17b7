package bakefile

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"bake/config/lang"
	"bake/config/schema"
	"bake/internal/lazyregexp"
)

// FleetBlock is a fleet block.
type FleetBlock struct {
	Name    string
	Options *Fleet
	Src     *schema.Source // of its options
	Block   *hcl.Block
	Images  []ImageRef // as they were written

	roles map[[2]string]string // by account and region
}

// Role returns the ARN of the role of a cell; empty: none is assumed.
func (f *FleetBlock) Role(account, region string) string { return f.roles[[2]string{account, region}] }

// ImageRef is a fleet's reference to an image block or, with a key, to one image of a
// block with for_each.
type ImageRef struct {
	Label, Key string
	Keyed      bool
	At         hcl.Range
}

// String returns the reference as it was written.
func (i ImageRef) String() string {
	if i.Keyed {
		return fmt.Sprintf("image.%s[%q]", i.Label, i.Key)
	}
	return "image." + i.Label
}

// Fleets returns the fleets, in the order in which they were written.
func (s *Settings) Fleets() []FleetBlock { return s.blocks }

// Engine returns the engine block, or nil if there is none.
func (s *Settings) Engine() *Engine { return s.engine.options }

var fleetName = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// fleets checks the fleet blocks and the engine block as a whole.
func (r *reader) fleets(ctx context.Context) {
	if b := r.settings.engine.block; b != nil && b.Labels[0] != "temporal" {
		r.complain(&b.LabelRanges[0], "Unknown engine", "Unknown engine %q.%s The only engine is temporal.", b.Labels[0], lang.DidYouMean(b.Labels[0], []string{"temporal"}))
	}
	first := map[string]hcl.Range{}
	for _, f := range r.settings.fleets {
		name := f.block.Labels[0]
		switch at, twice := first[name]; {
		case twice:
			r.complain(&f.block.LabelRanges[0], "Duplicate fleet", "There is a fleet %q already, at %s.", name, at)
			continue
		case !fleetName.Get().MatchString(name):
			r.complain(&f.block.LabelRanges[0], "Invalid name", "%q cannot be the name of a fleet: it starts with a letter or digit and has letters, digits, dots, underscores and dashes.", name)
		}
		first[name] = f.block.DefRange
		o := f.options
		if o.Matrix == nil && f.src.Known(&o.Matrix) {
			r.complain(&f.block.DefRange, "Missing matrix", "A fleet has a matrix block, with the accounts and regions that its images are baked in.")
			continue
		}
		one := FleetBlock{Name: name, Options: o, Src: f.src, Block: f.block, roles: map[[2]string]string{}}
		one.Images = r.fleetImages(o.Images)
		r.roles(&one, f)
		r.settings.blocks = append(r.settings.blocks, one)
	}
	r.settings.duplicateRegions = r.settings.findDuplicateRegions(ctx)
	r.diags = append(r.diags, r.settings.duplicateRegions...)
}

// fleetImages reads the list of a fleet's images.
func (r *reader) fleetImages(expr hcl.Expression) (all []ImageRef) {
	if expr == nil {
		return nil // which has been reported
	}
	at := expr.Range()
	elements, diags := hcl.ExprList(expr)
	if diags.HasErrors() {
		r.complain(&at, "Invalid list of images", "images is a list of references, such as [image.base, image.web].")
		return nil
	}
	if len(elements) == 0 {
		r.complain(&at, "No images", "images is empty, so that the fleet would have no cells.")
	}
	labels := r.imageLabels()
	for _, e := range elements {
		at := e.Range()
		ref, ok := imageRef(e)
		if !ok {
			r.complain(&at, "Not an image", "Name an image block, as in image.NAME, or one of its images, as in image.NAME[\"key\"].")
			continue
		}
		ref.At = at
		if !slices.Contains(labels, ref.Label) {
			r.complain(&at, "Unknown image", "There is no image %q.%s There are: %s.", ref.Label, lang.DidYouMean(ref.Label, labels), or(labels))
			continue
		}
		if slices.ContainsFunc(all, func(o ImageRef) bool {
			return o.Label == ref.Label && (!o.Keyed || !ref.Keyed || o.Key == ref.Key)
		}) {
			r.complain(&at, "Listed twice", "The fleet has %s already.", ref)
			continue
		}
		all = append(all, ref)
	}
	return all
}

// imageLabels returns the labels of all image blocks, whichever image the template is
// loaded for.
func (r *reader) imageLabels() (labels []string) {
	for _, f := range r.t.BakeFiles {
		for _, b := range f.Body.Blocks {
			if b.Type == "image" && len(b.Labels) == 1 {
				labels = append(labels, b.Labels[0])
			}
		}
	}
	slices.Sort(labels)
	return slices.Compact(labels)
}

// imageRef reads image.NAME or image.NAME["key"].
func imageRef(e hcl.Expression) (ref ImageRef, ok bool) {
	t, diags := hcl.AbsTraversalForExpr(e)
	if diags.HasErrors() || t.RootName() != "image" || len(t) < 2 || len(t) > 3 {
		return ref, false
	}
	label, ok := t[1].(hcl.TraverseAttr)
	if !ok {
		return ref, false
	}
	ref.Label = label.Name
	if len(t) == 3 {
		key, ok := t[2].(hcl.TraverseIndex)
		if !ok || key.Key.Type() != cty.String {
			return ref, false
		}
		ref.Key, ref.Keyed = key.Key.AsString(), true
	}
	return ref, true
}

// roles finds the role of each account and region of a fleet.
func (r *reader) roles(f *FleetBlock, from placed[Fleet]) {
	m := f.Options.Matrix
	if m == nil || !from.src.Known(&m.Account) || !from.src.Known(&m.Region) {
		return
	}
	expr := f.Options.Role
	if expr == nil {
		if len(m.Account) > 1 {
			r.complain(&f.Block.DefRange, "Missing role", "The credentials of bake are of one account, and the fleet has %d: set role to an ARN such as \"arn:aws:iam::${each.account}:role/bake-build\".", len(m.Account))
		}
		return
	}
	at := expr.Range()
	for _, account := range m.Account {
		for _, region := range m.Region {
			role, ok := r.role(from, expr, account, region)
			if !ok {
				return
			}
			in, isRole := accountOfRole(role)
			switch {
			case !isRole:
				r.complain(&at, "Not the ARN of a role", "%q is not the ARN of a role, such as \"arn:aws:iam::${each.account}:role/bake-build\".", role)
				return
			case in != account && len(m.Account) > 1 && len(expr.Variables()) == 0:
				r.complain(&at, "One role for several accounts", "A role is in one account, and the fleet has %d. Write ${each.account} in the place of its number.", len(m.Account))
				return
			case in != account:
				r.complain(&at, "Role of another account", "For account %s this is the role %s, which is in another account. Write ${each.account} in the place of its number.", account, role)
				return
			}
			f.roles[[2]string{account, region}] = role
		}
	}
}

// role returns the role of one account and region. If ok is false, it has reported an
// error, or the role is not known yet.
func (r *reader) role(f placed[Fleet], expr hcl.Expression, account, region string) (role string, ok bool) {
	at := expr.Range()
	ctx := f.context.NewChild()
	ctx.Variables = map[string]cty.Value{"each": cty.ObjectVal(map[string]cty.Value{"account": cty.StringVal(account), "region": cty.StringVal(region)})}
	val, diags := expr.Value(ctx)
	r.diags = lang.AppendNew(r.diags, diags)
	if diags.HasErrors() {
		return "", false
	}
	val, _ = val.UnmarkDeep()
	if val, err := convert.Convert(val, cty.String); err == nil && val.IsKnown() && !val.IsNull() {
		return val.AsString(), true
	}
	if val.IsKnown() || r.now {
		r.complain(&at, "Invalid role", "role must be the ARN of a role, such as \"arn:aws:iam::${each.account}:role/bake-build\", and known before anything is baked.")
	}
	return "", false
}

// accountOfRole returns the account of the ARN of a role.
func accountOfRole(arn string) (account string, ok bool) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" || !strings.HasPrefix(parts[5], "role/") || parts[5] == "role/" {
		return "", false
	}
	return parts[4], true
}

// DuplicateRegions returns errors for images that two cells of a fleet would create in the
// same region: the cell of that region, and another one that copies or distributes its
// image there. For a template that was loaded for an image, it covers only that image.
func (s *Settings) DuplicateRegions() hcl.Diagnostics { return s.duplicateRegions }

func (s *Settings) findDuplicateRegions(ctx context.Context) (diags hcl.Diagnostics) {
	complain := func(at hcl.Range, summary, format string, args ...any) {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &at})
	}
	for _, f := range s.blocks {
		if f.Options.Matrix == nil {
			continue
		}
		for _, ref := range f.Images {
			if len(f.Options.Matrix.Region) > 1 { // the region of the cell itself may be listed
				for _, c := range s.copies(ctx, ref.Label) {
					if slices.Contains(f.Options.Matrix.Region, c.region) {
						complain(c.at, "Baked and copied there", "The image %q is copied to %s, and the fleet %q bakes it there too. Take the region out of the matrix, or out of ami_regions.", ref.Label, c.region, f.Name)
					}
				}
			}
			for _, i := range s.images {
				d := i.options.Distribute
				if i.block.Labels[0] != ref.Label || d == nil {
					continue
				}
				for _, region := range d.Regions {
					if slices.Contains(f.Options.Matrix.Region, region) {
						complain(ref.At, "Baked and distributed there", "The image %q is distributed to %s, and the fleet bakes it there too. Take the region out of the matrix, or out of regions at %s.", ref.Label, region, i.src.Range(&d.Regions))
					}
				}
			}
		}
	}
	return diags
}

// copied is a region that a source copies an image to.
type copied struct {
	region string
	at     hcl.Range // of ami_regions
}

// copies returns the regions that the sources of an image name, as far as they are known.
func (s *Settings) copies(ctx context.Context, label string) (all []copied) {
	for _, p := range s.pipelines {
		if p.Block.Labels[0] != label {
			continue
		}
		in, diags := p.Build.Builder.Input(ctx, cty.EmptyObjectVal)
		if diags.HasErrors() {
			continue // reported by the build
		}
		content, _, _ := in.Body.PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "ami_regions"}}})
		attr := content.Attributes["ami_regions"]
		if attr == nil {
			continue
		}
		val, diags := attr.Expr.Value(in.Context)
		val, _ = val.UnmarkDeep()
		if diags.HasErrors() || !val.IsWhollyKnown() || val.IsNull() || !val.CanIterateElements() {
			continue
		}
		for _, one := range val.AsValueSlice() {
			if !one.IsNull() && one.Type() == cty.String {
				all = append(all, copied{one.AsString(), attr.Expr.Range()})
			}
		}
	}
	return all
}

// Copies returns the regions, without duplicates, that the image is copied to according to
// the image block with this label or its sources, as far as they are known before anything
// is baked.
func (s *Settings) Copies(ctx context.Context, label string) (regions []string) {
	for _, c := range s.copies(ctx, label) {
		regions = append(regions, c.region)
	}
	for _, i := range s.images {
		if i.block.Labels[0] == label && i.options.Distribute != nil {
			regions = append(regions, i.options.Distribute.Regions...)
		}
	}
	slices.Sort(regions)
	return slices.Compact(regions)
}
