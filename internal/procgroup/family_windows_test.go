package procgroup

import (
	"slices"
	"testing"
)

// TestFamily: a process that lists the number of an ended process as its parent need not be its
// child.
func TestFamily(t *testing.T) {
	children := map[uint32][]uint32{1: {2, 3, 1}, 2: {4, 5, 1}, 4: {6}, 7: {8}}
	for _, tt := range []struct {
		what    string
		created map[uint32]int64
		ends    uint32 // as soon as it has been asked about
		want    []uint32
	}{
		{"all run", map[uint32]int64{1: 10, 2: 11, 3: 12, 4: 13, 5: 14, 6: 15, 8: 16}, 0, []uint32{2, 3, 4, 5, 6}},
		{"3 and 5 are older than their parents", map[uint32]int64{1: 10, 2: 11, 3: 9, 4: 13, 5: 10, 6: 15}, 0, []uint32{2, 4, 6}},
		{"2 ends when it is found", map[uint32]int64{1: 10, 2: 11, 3: 12, 4: 5, 5: 14, 6: 15}, 2, []uint32{2, 3, 5}},
		{"1 has ended", map[uint32]int64{2: 11, 3: 12, 4: 13}, 0, nil},
	} {
		ended := false
		created := func(pid uint32) int64 {
			if pid == tt.ends {
				if ended {
					return 0
				}
				ended = true
			}
			return tt.created[pid]
		}
		if got := family(1, children, created); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.what, got, tt.want)
		}
	}
}
