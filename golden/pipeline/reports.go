package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"

	"bake/golden/findings"
	"bake/step"
)

// title returns the common beginning of the names of documents about the image: the build;
// the image, if the same builds make several images; and the location.
func (p *pipeline) title(s *step.Scope) string {
	title := s.Build
	if of := p.Template.Instance(); of != nil && of.Key != "" {
		title = p.image.Name + "." + title
	}
	if p.Place != "" {
		title += "." + p.Place
	}
	return title
}

// write writes a document in all machine-readable formats. The location of the JSON is
// logged.
func (p *pipeline) write(ctx context.Context, s *step.Scope, title, machine string, doc findings.Document) error {
	name := p.title(s) + "." + title
	if machine != s.Build { // several machines have such a report
		name += "." + strings.ReplaceAll(machine, " on ", ".")
	}
	var text bytes.Buffer
	if err := doc.Write(&text, findings.JSON); err != nil {
		return err
	}
	digest, err := p.keep(ctx, s, name, findings.JSON.Extension(), text.Bytes())
	if err != nil {
		return err
	}
	if err := p.announce(ctx, s, title, step.FindingsReport, digest); err != nil {
		return err
	}
	for _, format := range []findings.Format{findings.JUnit, findings.SARIF} {
		text.Reset()
		if err := doc.Write(&text, format); err != nil {
			return err
		}
		if err := p.Reports.Write(ctx, fileName(name)+format.Extension(), text.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// announce logs where a document was stored.
func (p *pipeline) announce(ctx context.Context, s *step.Scope, title, kind, digest string) error {
	path, err := filepath.Abs(p.Reports.Path(digest))
	if err == nil {
		s.Reported(ctx, step.Report{Name: title, Kind: kind, Path: path, SHA256: digest})
	}
	return err
}

// keep writes a document about the image, and returns its digest.
func (p *pipeline) keep(ctx context.Context, s *step.Scope, name, extension string, text []byte) (digest string, err error) {
	name = fileName(name) + extension
	if digest, err = p.Reports.Keep(ctx, name, text); err == nil {
		p.document(s, name, digest)
	}
	return digest, err
}

// longestName is the maximum length of a file name without its extensions: file systems
// allow 255 bytes.
const longestName = 200

// fileName converts a name to a file name. Different names have different file names.
func fileName(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	text := b.String()
	if len(text) > longestName {
		sum := sha256.Sum256([]byte(name))
		return fmt.Sprintf("%s%%%x", text[:keptName], sum[:16])
	}
	return text
}

// keptName is the length to which a name that is too long for a file is cut. The digest of
// the whole name follows it.
const keptName = longestName - 40

// readable returns the name from which a file name was made, with the extension of the
// file, for people; only its beginning if the name was too long.
func readable(file string) string {
	if end := keptName + 1 + 32; len(file) >= end && file[keptName] == '%' && len(file)-end <= 255-longestName {
		if _, err := hex.DecodeString(file[keptName+1 : end]); err == nil {
			file = file[:keptName] + "…" + file[end:]
		}
	}
	var b strings.Builder
	for i := 0; i < len(file); i++ {
		if file[i] == '%' && i+2 < len(file) {
			if c, err := hex.DecodeString(file[i+1 : i+3]); err == nil {
				b.Write(c)
				i += 2
				continue
			}
		}
		b.WriteByte(file[i])
	}
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}
