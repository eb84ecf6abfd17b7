package images

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"bake/internal/imagetag"
	"bake/internal/prose"
)

// The text is for a terminal, with the number of columns that the functions take, if it is not 0.
// Texts from external sources, such as names and tags, are escaped.

// Text returns a table of images. It shows the owners of images that do not belong to
// account.
func Text(account string, all []Image, now time.Time, columns int) string {
	if !slices.ContainsFunc(all, func(i Image) bool { return i.Owner != account }) {
		table := prose.NewTable("NAME", "ID", "REGION", "CREATED", "STATE", "GIB", "LAST LAUNCHED")
		for _, i := range all {
			state := i.status(now)
			if i.Public {
				state += ", public"
			}
			table.Row(i.Name, i.ID, i.Region, i.Created.Format(time.DateOnly), state, i.size(), day(i.LastLaunched))
		}
		return table.Within(columns)
	}
	table := prose.NewTable("NAME", "ID", "REGION", "OWNER", "CREATED", "STATE", "GIB")
	for _, i := range all {
		table.Row(i.Name, i.ID, i.Region, i.Owner, i.Created.Format(time.DateOnly), i.status(now), i.size())
	}
	return table.Within(columns)
}

// InstancesText returns a table of instances and their images.
func InstancesText(all []Instance, now time.Time, columns int) string {
	table := prose.NewTable("INSTANCE", "REGION", "STATE", "LAUNCHED", "IMAGE", "OWNER", "NAME", "NOTE")
	for _, i := range all {
		table.Row(i.ID, i.Region, i.State, day(&i.Launched), i.Image, cmp.Or(i.ImageOwner, "-"), cmp.Or(i.ImageName, "-"), i.Note(now))
	}
	return table.Within(columns)
}

// day returns the day of a time, "-" if there is none.
func day(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.DateOnly)
}

// Text describes what was done to the image; empty if nothing was.
func (r Removal) Text() string {
	name := fmt.Sprintf("%s (%s) in %s", r.Image.ID, prose.Printable(r.Image.Name), r.Image.Region)
	switch r.Outcome {
	case Removed:
		text := fmt.Sprintf("Removed image %s and its snapshots: %s.", name, cmp.Or(strings.Join(r.Deleted, ", "), "none"))
		if len(r.Kept) > 0 {
			text += " Kept, since other images consist of them: " + strings.Join(r.Kept, ", ") + "."
		}
		return text
	case Deprecated:
		return "Deprecated image " + name + "."
	case Disabled:
		text := "Disabled image " + name + "."
		if len(r.Shared) > 0 {
			text += " It was shared with " + strings.Join(r.Shared, ", ") + ", which its tags say: bake images enable shares it again."
		}
		return text
	case Gone:
		return "Image " + name + " was removed by somebody else."
	}
	return ""
}

// Text returns a table of the images that the plan changes, and a line with their count.
// retires means that images are deprecated and disabled before they are removed, and most
// is the maximum number of removals, in the format of [ParseShare].
func (p *Plan) Text(retires bool, most string, columns int) string {
	table := prose.NewTable("ACTION", "NAME", "ID", "REGION", "CREATED", "GIB", "LAST LAUNCHED", "REASON")
	for _, i := range p.Images {
		if i.Action == PlanKeep {
			continue
		}
		table.Row(i.Action, i.Image.Name, i.Image.ID, i.Image.Region, i.Image.Created.Format(time.DateOnly), i.Image.size(), day(i.Image.LastLaunched), i.Reason)
		for _, u := range i.Uses {
			table.Row("", "", "", "", "", "", "", "  "+u.String())
		}
	}
	count := func(action string) int {
		n, _ := p.Count(action)
		return n
	}
	text := ""
	if len(p.Images) > count(PlanKeep) {
		text = table.Within(columns) + "\n"
	}
	stages := ""
	if retires {
		stages = fmt.Sprintf("%d to deprecate, %d to disable, ", count(PlanDeprecate), count(PlanDisable))
	}
	n, gib := p.Count(PlanRemove)
	return text + fmt.Sprintf("%d images: %s%d to remove (at most %d GiB), %d in use, %d for a later run (-max %s), %d stay.",
		len(p.Images), stages, n, gib, count(PlanUsed), count(PlanLater), most, count(PlanKeep))
}

// OrphansText returns a table of snapshots, those to delete first, and a line with their
// cost.
func OrphansText(all []Orphan, columns int) string {
	table := prose.NewTable("SNAPSHOT", "REGION", "CREATED", "GIB", "IMAGE", "NOTE")
	n, cost := 0, 0.0
	for _, kept := range []bool{false, true} {
		for _, s := range all {
			if (s.Kept != "") != kept {
				continue
			}
			note := ""
			if kept {
				note = "kept: " + s.Kept
			} else {
				n, cost = n+1, cost+s.Price()
			}
			if len(s.Volumes) > 0 {
				note = strings.TrimPrefix(note+"; volumes made from it: "+strings.Join(s.Volumes, ", "), "; ")
			}
			table.Row(s.ID, s.Region, s.Created.Format(time.DateOnly), fmt.Sprintf("%.1f", float64(s.Bytes)/(1<<30)), cmp.Or(s.Image, "-"), note)
		}
	}
	return table.Within(columns) + fmt.Sprintf("\n%d snapshots without their image, which cost at most %.2f USD a month; %d more are kept.", n, cost, len(all)-n)
}

// Text returns a table of the differences; a sentence if there are none.
func (c Comparison) Text(columns int) string {
	if len(c.Differences) == 0 {
		return "No differences in attributes, tags, block devices and sharing."
	}
	table := prose.NewTable("", c.A.ID, c.B.ID)
	for _, d := range c.Differences {
		a, b := cmp.Or(d.A, "-"), cmp.Or(d.B, "-")
		if strings.HasPrefix(d.What, "tag "+imagetag.Inputs+".") { // compressed, and long
			a, b = prose.Short(a, 100), prose.Short(b, 100)
		}
		table.Row(d.What, a, b)
	}
	return table.Within(columns)
}

// Text returns all details of the image, as seen by an account.
func (d Detail) Text(account string, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s) in %s\n", prose.Printable(d.Name), d.ID, d.Region)
	var attributes prose.Table
	for _, l := range d.attributes(account, now) {
		if l[1] != "" {
			attributes.Row("  "+l[0], l[1])
		}
	}
	fmt.Fprintln(&b, attributes.String())
	section := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintln(&b, title)
		}
		for _, line := range lines {
			fmt.Fprintln(&b, "  "+prose.Printable(line))
		}
	}
	var tags, parts, from, copies []string
	for _, k := range slices.Sorted(maps.Keys(d.Tags)) {
		tags = append(tags, k+" = "+d.Tags[k])
	}
	for _, s := range d.Devices {
		parts = append(parts, s.text(d.Parts))
	}
	for _, l := range d.Lineage {
		from = append(from, l.text())
	}
	for _, c := range d.Copies {
		copies = append(copies, fmt.Sprintf("%s  %s  %s  %s", c.Region, c.ID, c.status(now), c.Name))
	}
	section("Tags", tags)
	section("Devices", parts)
	section("Made from", from)
	section("Copies", copies)
	section("Launch it with", []string{d.Launch})
	return strings.TrimSuffix(b.String(), "\n")
}

// attributes returns the attributes of the image, each with its name; empty ones are not
// known.
func (d Detail) attributes(account string, now time.Time) [][2]string {
	owner := d.Owner
	if d.OwnerAlias != "" {
		owner += " (" + d.OwnerAlias + ")"
	}
	shared, launched := "", ""
	if d.Owner == account {
		owner += " (this account)"
		if launched = "never, as far as AWS knows, which is up to a day late"; d.LastLaunched != nil {
			launched = d.LastLaunched.Format(time.DateTime) + " UTC"
		}
	}
	if d.Sharing != nil {
		shared = d.Sharing.String()
	} else if d.Public {
		shared = "everybody"
	}
	deprecated := ""
	if d.Deprecated != nil {
		deprecated = d.Deprecated.Format(time.DateTime) + " UTC"
	}
	allowed := ""
	if d.Allowed != nil && !*d.Allowed {
		allowed = "no: the account's Allowed AMIs leave it out"
	}
	protection := ""
	if d.protected() {
		protection = d.Protection
	}
	ena := "no"
	if d.ENA {
		ena = "yes"
	}
	return [][2]string{
		{"State", strings.TrimSuffix(d.status(now)+": "+d.Reason, ": ")},
		{"Description", d.Description}, {"Owner", owner}, {"Shared with", shared},
		{"Created", d.Created.Format(time.DateTime) + " UTC"}, {"Last launched", launched}, {"Deprecated from", deprecated},
		{"Deregistration protection", protection}, {"Can be launched", allowed},
		{"Product codes", strings.Join(d.ProductCodes, ", ")}, {"Watermarks", strings.Join(d.Watermarks, ", ")},
		{"Architecture", d.Architecture}, {"Platform", d.Platform}, {"Boot mode", d.BootMode}, {"IMDS", d.IMDS}, {"TPM", d.TPM}, {"ENA", ena},
		{"Root device", d.RootDevice},
	}
}

// text describes the device, with what is known of its snapshot.
func (d Device) text(parts []Snapshot) string {
	if d.Snapshot == "" && d.Virtual != "" {
		return d.Name + "  instance store " + d.Virtual
	}
	words := []string{d.Name, d.Snapshot, strings.TrimSpace(fmt.Sprintf("%d GiB %s", d.Size, d.Type))}
	i := slices.IndexFunc(parts, func(s Snapshot) bool { return s.ID == d.Snapshot })
	switch {
	case d.Encrypted && i >= 0 && parts[i].Key != "":
		words = append(words, "encrypted with "+parts[i].Key)
	case d.Encrypted:
		words = append(words, "encrypted")
	default:
		words = append(words, "not encrypted")
	}
	if i >= 0 {
		s := parts[i]
		if s.State != "completed" {
			words = append(words, strings.TrimSuffix(s.State+": "+s.Reason, ": "))
		}
		if s.Sharing != nil && !s.Sharing.Empty() {
			words = append(words, "shared with "+s.Sharing.String())
		}
	}
	return strings.Join(words, "  ")
}

func (l Ancestor) text() string {
	how := "built on"
	if l.Copied {
		how = "copy of "
	}
	if l.Name == "" {
		return fmt.Sprintf("%s  %s  %s  (gone, or not visible to this account)", how, l.Region, l.ID)
	}
	return fmt.Sprintf("%s  %s  %s  %s, owner %s", how, l.Region, l.ID, l.Name, l.Owner)
}
