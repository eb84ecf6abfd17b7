// Package docs is the documentation that the program has in it: the guide, the functions
// and blocks of templates, a user's settings, and how options belong together.
package docs

import (
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"sort"
	"strings"
)

// packed is what [pack] makes of the pages: "go test ./docs -update" writes it.
//
//go:embed packed.gz
var packed string

// Page is a document of this directory.
type Page struct {
	Name string // such as "guide/01-first-image.md"
	Text string
}

// Pages returns the pages below a directory, or the one page of this name, by name.
func Pages(under string) ([]Page, error) {
	all, err := unpack(packed)
	var found []Page
	for _, p := range all {
		if p.Name == under || strings.HasPrefix(p.Name, under+"/") {
			found = append(found, p)
		}
	}
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("the program has no document %s", under)
	}
	return found, err
}

// pack makes one compressed text of pages: each is its name in a line, and its text, which
// a zero byte ends.
func pack(w io.Writer, pages []Page) error {
	sort.Slice(pages, func(i, j int) bool { return pages[i].Name < pages[j].Name })
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	for _, p := range pages {
		if _, err := fmt.Fprintf(z, "%s\n%s\x00", p.Name, p.Text); err != nil {
			return err
		}
	}
	return z.Close()
}

func unpack(text string) ([]Page, error) {
	z, err := gzip.NewReader(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	all, err := io.ReadAll(z)
	var pages []Page
	for part := range strings.SplitSeq(strings.TrimSuffix(string(all), "\x00"), "\x00") {
		name, body, _ := strings.Cut(part, "\n")
		pages = append(pages, Page{name, body})
	}
	return pages, err
}
