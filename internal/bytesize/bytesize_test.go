package bytesize

import "testing"

func TestParse(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "12": 12, "12B": 12, "10GB": 1e10, "1.5 GiB": 3 << 29, "2kb": 2000, "3MiB": 3 << 20, "1TB": 1e12,
		"": -1, "GB": -1, "-1GB": -1, "1e3": -1, "0x10": -1, "ten": -1, "10GBs": -1, "1 2GB": -1, "NaN": -1, "inf": -1, "9999999999TB": -1, "1.2.3": -1,
	} {
		if n, err := Parse(text); (err != nil) != (want < 0) || err == nil && n != want {
			t.Errorf("%q: %d, %v, want %d", text, n, err, want)
		}
	}
}
