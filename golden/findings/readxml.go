package findings

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// xmlReader reads a document as a stream.
type xmlReader struct {
	d     *xml.Decoder
	depth int
}

func newXMLReader(src []byte) *xmlReader {
	return &xmlReader{d: xml.NewDecoder(bytes.NewReader(src))}
}

// token returns the next token. It refuses document type declarations, which could declare
// entities.
func (x *xmlReader) token() (xml.Token, error) {
	t, err := x.d.Token()
	if err != nil {
		return nil, err
	}
	if _, ok := t.(xml.Directive); ok {
		line, _ := x.d.InputPos()
		return nil, fmt.Errorf("line %d has a document type declaration, which is not accepted", line)
	}
	return t, nil
}

// root returns the first element.
func (x *xmlReader) root() (xml.StartElement, error) {
	for {
		t, err := x.token()
		if errors.Is(err, io.EOF) {
			return xml.StartElement{}, errEmpty
		}
		if err != nil {
			return xml.StartElement{}, err
		}
		if e, ok := t.(xml.StartElement); ok {
			return e, nil
		}
	}
}

// end reads to the end of the document, after its root.
func (x *xmlReader) end() error {
	for {
		t, err := x.token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if e, ok := t.(xml.StartElement); ok {
			return fmt.Errorf("there is a second root element, <%s>", e.Name.Local)
		}
	}
}

// children calls visit with each child of the current element, and returns after the
// element's end. visit reads the child to its end.
func (x *xmlReader) children(visit func(xml.StartElement) error) error {
	return x.content(visit, nil)
}

func (x *xmlReader) content(visit func(xml.StartElement) error, text *strings.Builder) error {
	if x.depth++; x.depth > maxDepth {
		return fmt.Errorf("its elements are nested more than %d deep", maxDepth)
	}
	defer func() { x.depth-- }()
	for {
		t, err := x.token()
		if errors.Is(err, io.EOF) {
			return errors.New("it ends early")
		}
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if err := visit(t); err != nil {
				return err
			}
		case xml.EndElement:
			return nil
		case xml.CharData:
			if text != nil && text.Len() <= maxText {
				text.Write(t[:min(len(t), maxText+1)])
			}
		}
	}
}

// skip skips an element.
func (x *xmlReader) skip(xml.StartElement) error { return x.children(x.skip) }

// text returns the text of the current element, including all elements below it.
func (x *xmlReader) text() (string, error) {
	var b strings.Builder
	var below func(xml.StartElement) error
	below = func(xml.StartElement) error { return x.content(below, &b) }
	err := x.content(below, &b)
	return strings.TrimSpace(b.String()), err
}

// attribute returns an attribute of an element; empty if it has none.
func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}
