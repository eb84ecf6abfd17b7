package ssh

import "testing"

// Parts cover the data once, begin at blocks, and get smaller towards the end.
func TestSpansOf(t *testing.T) {
	const size = 100<<20 + 12345
	for name, ranges := range map[string][]span{
		"whole":  {{0, size}},
		"sparse": {{5, 10}, {70000, 100000}, {20 << 20, 60 << 20}, {size - 3, 3}},
	} {
		for _, workers := range []int{1, 4, 8} {
			parts, done := spansOf(ranges, size, workers), int64(0)
			for i, p := range parts {
				if p.at < done || p.at%partBlock != 0 || p.size <= 0 || p.size > largePart+partBlock || i < len(parts)-1 && p.size%partBlock != 0 {
					t.Errorf("%s, %d: part %d is %+v", name, workers, i, p)
				}
				done = p.at + p.size
			}
			if done != size {
				t.Errorf("%s, %d: the parts end at %d, want %d", name, workers, done, int64(size))
			}
			for _, r := range ranges {
				for _, at := range []int64{r.at, r.at + r.size - 1} {
					held := 0
					for _, p := range parts {
						if at >= p.at && at < p.at+p.size {
							held++
						}
					}
					if held != 1 {
						t.Errorf("%s, %d: byte %d is in %d parts", name, workers, at, held)
					}
				}
			}
			if name == "whole" && (parts[0].size < parts[len(parts)-2].size || parts[len(parts)-2].size > 2*smallPart) {
				t.Errorf("%d: the first part has %d bytes, one of the last %d", workers, parts[0].size, parts[len(parts)-2].size)
			}
			if name == "whole" && workers == 8 && len(parts) > 60 {
				t.Errorf("%d parts", len(parts))
			}
		}
	}
}
