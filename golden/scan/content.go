package scan

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"bake/internal/hostpath"
)

// maxContent is the maximum size of a content file.
const maxContent = 256 << 20

// Content is a file of SCAP content: a source data stream, a benchmark, or a tailoring.
type Content struct {
	SHA256   string
	Profiles []string  // IDs
	Streams  []string  // IDs of the data streams
	Dated    time.Time // the newest date in it that is not in the future; zero: none

	data []byte
}

// ReadContent reads a content file. It ignores dates after now, which must be mistakes.
func ReadContent(path string, now time.Time) (*Content, error) {
	data, err := hostpath.Read(path, maxContent)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	c := &Content{SHA256: hex.EncodeToString(sum[:]), data: data}
	if err := c.read(now); err != nil {
		return nil, fmt.Errorf("%s is not SCAP content: %w", path, err)
	}
	return c, nil
}

// read looks for profiles.
func (c *Content) read(now time.Time) error {
	d := xml.NewDecoder(bytes.NewReader(c.data))
	found := false
	for {
		t, err := d.Token()
		switch {
		case errors.Is(err, io.EOF) && !found:
			return errors.New("there is no benchmark in it")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		switch t := t.(type) {
		case xml.Directive:
			return errors.New("it has a document type declaration")
		case xml.StartElement:
			c.note(t, now)
			if !strings.HasPrefix(t.Name.Space, "http://checklists.nist.gov/xccdf/") {
				continue
			}
			found = found || t.Name.Local == "Benchmark" || t.Name.Local == "Tailoring"
			if t.Name.Local != "Profile" {
				continue
			}
			for _, a := range t.Attr {
				if a.Name.Local == "id" {
					c.Profiles = append(c.Profiles, a.Value)
				}
			}
		}
	}
}

// note records the data streams and the dates: those of components, and of the status of a
// benchmark.
func (c *Content) note(t xml.StartElement, now time.Time) {
	for _, a := range t.Attr {
		switch {
		case t.Name.Local == "data-stream" && a.Name.Local == "id":
			c.Streams = append(c.Streams, a.Value)
		case t.Name.Local == "component" && a.Name.Local == "timestamp", t.Name.Local == "status" && a.Name.Local == "date":
			day, _, _ := strings.Cut(a.Value, "T")
			if at, err := time.Parse(time.DateOnly, day); err == nil && at.After(c.Dated) && !at.After(now) {
				c.Dated = at
			}
		}
	}
}

// Has reports whether the content has the profile. As with oscap, the end of the ID is
// sufficient.
func (c *Content) Has(profile string) bool {
	for _, id := range c.Profiles {
		if strings.HasSuffix(id, profile) {
			return true
		}
	}
	return false
}
