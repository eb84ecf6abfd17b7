package ui

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// launches is a table of the images that were made, by region, with a command for each that
// launches a machine of it.
func (t *transcript) launches(local bool) (lines []string) {
	type row struct{ build, region, image string }
	var rows []row
	seen := map[row]bool{}
	builds, regions, ids := len("Build"), len("Region"), len("Image")
	for _, o := range t.builds {
		for _, a := range o.artifacts {
			if a == nil {
				continue
			}
			for _, region := range slices.Sorted(maps.Keys(a.Images)) {
				r := row{strip(o.name), strip(region), strip(a.Images[region])}
				if seen[r] {
					continue // a post-processor has passed the image on
				}
				seen[r] = true
				rows = append(rows, r)
				builds, regions, ids = max(builds, cells(r.build)), max(regions, cells(r.region)), max(ids, cells(r.image))
			}
		}
	}
	if rows == nil {
		return nil
	}
	add := func(r row, launch string) {
		pad := func(s string, n int) string { return s + strings.Repeat(" ", n-cells(s)+2) }
		lines = append(lines, pad(r.build, builds)+pad(r.region, regions)+pad(r.image, ids)+launch)
	}
	lines = append(lines, "")
	add(row{"Build", "Region", "Image"}, "Launch it with")
	for _, r := range rows {
		if local {
			add(r, fmt.Sprintf("bake cloud run -region %s %s", r.region, r.image))
		} else {
			add(r, fmt.Sprintf("aws ec2 run-instances --image-id %s --region %s", r.image, r.region))
		}
	}
	return lines
}
