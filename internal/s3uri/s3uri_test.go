package s3uri_test

import (
	"testing"

	"bake/internal/s3uri"
)

func TestParse(t *testing.T) {
	for uri, want := range map[string]string{
		"s3://acme-images": "acme-images ", "s3://acme-images/": "acme-images ", "s3://acme.images/reports/web/": "acme.images reports/web",
		"s3://": "", "s3:///x": "", "s3://ab/": "", "s3://Acme_Old/x": "Acme_Old x", "s3://acme--use1-az4--x-s3/x": "", "s3://acme/a//b": "", "s3://acme/../x": "", "gs://acme": "", "acme": "",
	} {
		name, prefix, err := s3uri.Parse(uri)
		if got := name + " " + prefix; err == nil && got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", uri, got, err, want)
		}
	}
}
