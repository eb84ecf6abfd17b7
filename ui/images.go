package ui

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// launches returns a table of the created images, by region, each with a command that launches a
// machine from it: in the same line if the table fits into width columns, otherwise below.
func (t *transcript) launches(local bool, width int) (lines []string) {
	type row struct{ build, region, image, launch string }
	rows, seen := []row{{"Build", "Region", "Image", "Launch it with"}}, map[row]bool{}
	for _, o := range t.builds {
		for _, a := range o.artifacts {
			if a == nil {
				continue
			}
			for _, region := range slices.Sorted(maps.Keys(a.Images)) {
				r := row{build: strip(o.name), region: strip(region), image: strip(a.Images[region])}
				r.launch = fmt.Sprintf("aws ec2 run-instances --image-id %s --region %s", r.image, r.region)
				if local {
					r.launch = fmt.Sprintf("bake cloud run -region %s %s", r.region, r.image)
				}
				if seen[r] {
					continue // a post-processor has returned its input
				}
				seen[r] = true
				rows = append(rows, r)
			}
		}
	}
	if len(rows) == 1 {
		return nil
	}
	var builds, regions, ids, commands int // column widths
	for _, r := range rows {
		builds, regions = max(builds, cells(r.build)), max(regions, cells(r.region))
		ids, commands = max(ids, cells(r.image)), max(commands, cells(r.launch))
	}
	pad := func(s string, n int) string { return s + strings.Repeat(" ", n-cells(s)+2) }
	beside := builds+regions+ids+commands+3*2 < width
	lines = append(lines, "")
	for _, r := range rows {
		line := pad(r.build, builds) + pad(r.region, regions)
		if beside {
			lines = append(lines, line+pad(r.image, ids)+r.launch)
		} else {
			lines = append(lines, line+r.image, "  "+r.launch)
		}
	}
	return lines
}
