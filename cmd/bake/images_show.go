package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bake/builder/amazon/images"
)

func (p *program) imagesShowCommand() *cobra.Command {
	var f placeFlags
	cmd := &cobra.Command{
		Use:   "show IMAGE",
		Short: "Show everything about an image",
		Long: `Show an image, by its ID or name: its attributes, tags, snapshots and keys, whom it is
shared with, what it was made from, where copies of it are, and how to launch it.

Copies are looked for in all regions that are enabled for the account, or in those of
-regions: what was copied from the image, or from what it is a copy of, and what has the
same tags bake:image and bake:release. Whom an image is shared with is known to its owner only.`,
		Example: `  bake images show ami-0123456789abcdef0
  bake images show web-20261128 -region eu-west-1 -json`,
		Args: exactly("the ID or name of an image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.withImages(cmd, &f, func(ctx, _ context.Context, a *images.Account) error {
				var copies []string
				if f.regions != nil {
					copies = a.Regions
				}
				d, err := a.Show(ctx, args[0], copies)
				if d.ID != "" {
					p.showImage(a.ID, d)
				}
				return err
			})
		},
		Annotations: map[string]string{exitCodes: imagesExitCodes},
	}
	f.register(p, cmd.Flags())
	p.jsonFlag(cmd)
	return cmd
}

// showImage shows all about an image to the account.
func (p *program) showImage(account string, d images.Detail) {
	if p.json.on {
		p.json.result = struct {
			Image images.Detail `json:"image"`
		}{d}
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s) in %s\n", printable(d.Name), d.ID, d.Region)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %s\t%s\n", name, printable(value))
		}
	}
	for _, l := range p.attributes(account, d) {
		line(l[0], l[1])
	}
	_ = w.Flush() // into memory
	section := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(&b, "%s\n  %s\n", title, strings.Join(lines, "\n  "))
		}
	}
	var tags, parts, from, copies []string
	for _, k := range slices.Sorted(maps.Keys(d.Tags)) {
		tags = append(tags, printable(k+" = "+d.Tags[k]))
	}
	for _, s := range d.Devices {
		parts = append(parts, deviceText(s, d.Parts))
	}
	for _, l := range d.Lineage {
		from = append(from, printable(ancestorText(l)))
	}
	for _, c := range d.Copies {
		copies = append(copies, printable(fmt.Sprintf("%s  %s  %s  %s", c.Region, c.ID, c.Status(p.now()), c.Name)))
	}
	section("Tags", tags)
	section("Devices", parts)
	section("Made from", from)
	section("Copies", copies)
	section("Launch it with", []string{d.Launch})
	p.say(strings.TrimSuffix(b.String(), "\n"))
}

// attributes are those of an image, each with its name.
func (p *program) attributes(account string, d images.Detail) [][2]string {
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
	if d.Protected() {
		protection = d.Protection
	}
	ena := "no"
	if d.ENA {
		ena = "yes"
	}
	return [][2]string{
		{"State", strings.TrimSuffix(d.Status(p.now())+": "+d.Reason, ": ")},
		{"Description", d.Description}, {"Owner", owner}, {"Shared with", shared},
		{"Created", d.Created.Format(time.DateTime) + " UTC"}, {"Last launched", launched}, {"Deprecated from", deprecated},
		{"Deregistration protection", protection}, {"Can be launched", allowed},
		{"Product codes", strings.Join(d.ProductCodes, ", ")}, {"Watermarks", strings.Join(d.Watermarks, ", ")},
		{"Architecture", d.Architecture}, {"Platform", d.Platform}, {"Boot mode", d.BootMode}, {"IMDS", d.IMDS}, {"TPM", d.TPM}, {"ENA", ena},
		{"Root device", d.RootDevice},
	}
}

// deviceText describes a device of an image, with what is known of its snapshot.
func deviceText(d images.Device, parts []images.Snapshot) string {
	if d.Snapshot == "" && d.Virtual != "" {
		return printable(d.Name + "  instance store " + d.Virtual)
	}
	words := []string{d.Name, d.Snapshot, strings.TrimSpace(fmt.Sprintf("%d GiB %s", d.Size, d.Type))}
	i := slices.IndexFunc(parts, func(s images.Snapshot) bool { return s.ID == d.Snapshot })
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
	return printable(strings.Join(words, "  "))
}

func ancestorText(l images.Ancestor) string {
	how := "built on"
	if l.Copied {
		how = "copy of "
	}
	if l.Name == "" {
		return fmt.Sprintf("%s  %s  %s  (gone, or not visible to this account)", how, l.Region, l.ID)
	}
	return fmt.Sprintf("%s  %s  %s  %s, owner %s", how, l.Region, l.ID, l.Name, l.Owner)
}
