package bakefile

import (
	"context"
	"slices"
	"strings"

	"github.com/gobwas/glob"
	"github.com/hashicorp/hcl/v2"

	"bake/config"
	"bake/config/lang"
	"bake/config/schema"
)

// Pipeline is an image block, for one of the builds that make the image.
type Pipeline struct {
	Name  string // of the image
	Image *Image
	Src   *schema.Source // of its options
	Build *config.Build

	Block *hcl.Block
	Body  hcl.Body // the parts of the block that the image depends on
	Reads []string // files and directories that the block names

	// Provisioners are those of each verify block.
	Provisioners [][]*config.Provisioner
}

// Images returns the pipelines of the builds that have an image block.
func (s *Settings) Images() []Pipeline { return s.pipelines }

// join finds the builds of each image.
func (r *reader) join(ctx context.Context) {
	taken := map[*config.Build]string{}
	first := map[string]hcl.Range{}
	parameters := map[string]string{}
	for _, i := range r.settings.images {
		name := i.block.Labels[0]
		if of := r.t.Instance(); of != nil {
			name = of.Name()
		}
		if at, ok := first[name]; ok {
			r.complain(&i.block.LabelRanges[0], "Duplicate image", "There is an image %q already, at %s.", name, at)
			continue
		}
		first[name] = i.block.DefRange
		if strings.TrimSpace(name) == "" {
			r.complain(&i.block.LabelRanges[0], "Missing name", "The label of an image block is its name, and cannot be empty.")
		}
		builds := r.builds(i)
		r.parameters(i, name, len(builds), parameters)
		if len(builds) > 1 && i.options.Retention != nil {
			r.complain(i.src.Range(&i.options.Retention), "Several builds make the image", "Older images of one build would count as releases of another, and the image %s is made by %d builds. Give each an image block of its own.", name, len(builds))
		}
		for _, b := range builds {
			if other, ok := taken[b]; ok {
				r.complain(&i.block.DefRange, "Two images of one build", "The build %s makes the image %q already.", b.Name, other)
				continue
			}
			taken[b] = name
			p := Pipeline{Name: name, Image: i.options, Src: i.src, Build: b, Block: i.block, Body: counted(i.block), Reads: r.reads[i.block]}
			for _, v := range i.options.Verify {
				var all []*config.Provisioner
				for _, block := range v.Provisioners {
					one, diags := r.t.Provisioner(ctx, block.Block, b)
					r.diags = lang.AppendNew(r.diags, diags)
					all = append(all, one)
				}
				p.Provisioners = append(p.Provisioners, all)
			}
			r.settings.pipelines = append(r.settings.pipelines, p)
		}
	}
}

// again reports whether an earlier image block has the same label.
func (r *reader) again(b *hcl.Block) bool {
	return slices.ContainsFunc(r.settings.images, func(i placed[Image]) bool { return i.block.Labels[0] == b.Labels[0] })
}

// Unnamed returns the builds of the template that make none of the images.
func Unnamed(ctx context.Context, t *config.Template, images []config.ImageOf) (rest map[*config.Build]bool) {
	rest = map[*config.Build]bool{}
	for _, b := range t.Builds {
		rest[b] = true
	}
	for _, i := range images {
		settings, _ := Check(ctx, t.For(i.Instance)) // errors are reported by the run of the image
		for _, p := range settings.Images() {
			delete(rest, p.Build)
		}
	}
	return rest
}

// builds returns the builds that make an image, and reports names that match no build.
func (r *reader) builds(i placed[Image]) (found []*config.Build) {
	var names, blocks []string
	for _, b := range r.t.Builds {
		names = append(names, b.Name)
		if b.Block != "" && !slices.Contains(blocks, b.Block) {
			blocks = append(blocks, b.Block)
		}
	}
	open := r.t.Open || slices.ContainsFunc(r.t.Builds, func(b *config.Build) bool { return b.Unsettled })
	add := func(match func(*config.Build) bool) bool {
		n := len(found)
		for _, b := range r.t.Builds {
			if match(b) && !slices.Contains(found, b) {
				found = append(found, b)
			}
		}
		return len(found) > n
	}
	o := i.options
	if o.Build != "" && !add(func(b *config.Build) bool { return b.Block == o.Build }) && !open {
		r.complain(i.src.Range(&o.Build), "No such build", "The template has no build block with the name %q.%s Named build blocks: %s.", o.Build, lang.DidYouMean(o.Build, blocks), or(blocks))
	}
	for _, pattern := range o.Sources {
		g, err := glob.Compile(pattern)
		if err != nil {
			r.complain(i.src.Range(&o.Sources), "Invalid pattern", "%q: %s.", pattern, err)
			continue
		}
		matched := slices.ContainsFunc(found, func(b *config.Build) bool { return g.Match(b.Name) })
		if !add(func(b *config.Build) bool { return g.Match(b.Name) }) && !matched && !open {
			r.complain(i.src.Range(&o.Sources), "No such source", "%q matches none of the builds.%s There are: %s.", pattern, lang.DidYouMean(pattern, names), or(names))
		}
	}
	return found
}

func or(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
