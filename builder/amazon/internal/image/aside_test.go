package image

import (
	"fmt"
	"testing"
)

// An image with many tags from the template is not refused because of bake's explanatory tags.
func TestMark(t *testing.T) {
	marks := map[string]string{"bake:inputs": "digest", "bake:inputs.1": "a", "bake:inputs.2": "b"}
	for tags, want := range map[int]int{0: 3, 45: 3, 46: 1, 48: 1} {
		l := Labels{Tags: map[string]string{}}
		for n := range tags {
			l.Tags[fmt.Sprint("t", n)] = "x"
		}
		if l.AddImageTags(marks); len(l.ImageTags) != want || l.ImageTags["bake:inputs"] == "" || len(marks) != 3 {
			t.Errorf("beside %d tags there are %d marks: %v", tags, len(l.ImageTags), l.ImageTags)
		}
	}
}
