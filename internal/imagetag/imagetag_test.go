package imagetag_test

import (
	"slices"
	"testing"
	"time"

	"bake/internal/imagetag"
)

// TestOrder: an image of an earlier second is older; in the same second, the one whose run began
// earlier, and then the one with the lesser id, in any order of input.
func TestOrder(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	of := func(id string, after time.Duration, run string) imagetag.Made {
		return imagetag.Made{ID: id, Created: at.Add(after), Tags: map[string]string{imagetag.Reports: run}}
	}
	want := []imagetag.Made{
		of("ami-9", 0, "019a3b2c-0001-8000-8000-0fff00000001"),
		of("ami-4", time.Second, ""),
		of("ami-5", time.Second, "ffffffff-0001-4000-8000-000000000001"), // no time
		of("ami-6", time.Second, "no id"),
		of("ami-8", time.Second, "ffffffff-ffff-8000-bfff-019a3b2c0002"),
		of("ami-3", time.Second, "2222a111-0003-8000-8000-019a3b2c0003"),
		of("ami-7", time.Second, "11111111-0001-8000-8000-019A3B2C0003"),
		of("ami-1", 2*time.Second, ""),
	}
	for i, a := range want {
		for j, b := range want {
			if got := imagetag.Order(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s and %s: %d", a.ID, b.ID, got)
			}
		}
	}
	for _, c := range []struct{ a, b, age int }{{1, 2, 0}, {3, 1, 0}, {5, 6, 0}, {0, 1, -1}, {7, 5, 1}, {4, 3, 1}} {
		if got := imagetag.Age(want[c.a], want[c.b]); (got < 0) != (c.age < 0) || (got > 0) != (c.age > 0) {
			t.Errorf("the age of %s and %s: %d", want[c.a].ID, want[c.b].ID, got)
		}
	}
	shuffled := slices.Clone(want)
	slices.Reverse(shuffled)
	slices.SortStableFunc(shuffled, imagetag.Order)
	if !slices.EqualFunc(shuffled, want, func(a, b imagetag.Made) bool { return a.ID == b.ID }) {
		t.Errorf("sorted: %v", shuffled)
	}
}
