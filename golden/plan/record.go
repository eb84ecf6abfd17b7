package plan

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"

	"bake/internal/prose"
)

// The record of an image holds its inputs in tags. Tags are copied with the image, need
// no other service or permission, and remain when everything else is lost. The record
// only explains changes; the digest decides.
const (
	recordTag   = InputsTag + "." // followed by a number, from 1
	recordTags  = 6               // maximum number of tags
	tagLimit    = 256             // characters of the value of a tag
	digestBytes = 4               // of the digest of each input
	recordLimit = 64 << 10        // maximum size of a decompressed record in bytes
)

// FilePrefix is the prefix of the names of inputs that are files.
const FilePrefix = "file "

// Tags returns the tags that record the inputs of an image.
func Tags(name string, inputs []Input) map[string]string {
	tags := map[string]string{ImageTag: name, InputsTag: Digest(inputs)}
	for level := range levels {
		text := encode(level, inputs)
		if len(text) > recordTags*tagLimit {
			continue
		}
		for n := 1; text != ""; n++ {
			part := text[:min(tagLimit, len(text))]
			tags[fmt.Sprintf("%s%d", recordTag, n)] = part
			text = text[len(part):]
		}
		return tags
	}
	return tags // a change is then not explained
}

// levels is the number of levels of detail of a record: all details, no values, files by
// directory, files combined, and only the kinds of input.
const levels = 5

// condense returns the inputs with the details of a level.
func condense(level int, inputs []Input) []Input {
	groups := map[string][]Input{}
	for _, in := range ordered(inputs) {
		name := in.Name
		file, isFile := strings.CutPrefix(name, FilePrefix)
		switch {
		case level >= 4:
			name, _, _ = strings.Cut(name, " ")
			name, _, _ = strings.Cut(name, ".")
		case level == 3 && isFile:
			name = "files"
		case level == 2 && isFile:
			name = "files of " + path.Dir(file)
		}
		groups[name] = append(groups[name], in)
	}
	var out []Input
	for name, all := range groups {
		in := all[0]
		if len(all) > 1 || level >= 2 && name != in.Name {
			in = Input{Digest: Digest(all)}
		}
		in.Name = name
		if level >= 1 {
			in.Shown = ""
		}
		out = append(out, in)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// encode writes the inputs with the details of a level.
func encode(level int, inputs []Input) string {
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		return ""
	}
	text := []byte{byte(level)}
	for _, in := range condense(level, inputs) {
		text = appendText(text, in.Name)
		text = appendText(text, in.short())
		text = appendText(text, in.Shown)
	}
	if _, err := w.Write(text); err != nil || w.Close() != nil {
		return ""
	}
	return base64.RawStdEncoding.EncodeToString(packed.Bytes())
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// short returns the start of the digest.
func (in Input) short() string { return in.Digest[:min(2*digestBytes, len(in.Digest))] }

// shown returns the value, or the start of its digest.
func (in Input) shown() string {
	if in.Shown != "" {
		return in.Shown
	}
	return in.short()
}

// record holds the recorded inputs of an image.
type record struct {
	level  int
	inputs []Input // with the start of their digests
}

var errRecord = errors.New("the image does not record its inputs")

// read reads the record of an image. It is untrusted: anyone who may tag the image can
// write it.
func read(tags map[string]string) (r record, err error) {
	var text strings.Builder
	for n := 1; n <= recordTags; n++ {
		text.WriteString(tags[fmt.Sprintf("%s%d", recordTag, n)])
	}
	packed, err := base64.RawStdEncoding.DecodeString(text.String())
	if err != nil || len(packed) == 0 {
		return r, errRecord
	}
	rest, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), recordLimit))
	if err != nil || len(rest) == 0 {
		return r, errRecord
	}
	r.level, rest = int(rest[0]), rest[1:]
	if r.level >= levels {
		return r, errRecord
	}
	next := func() (text string) {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > uint64(len(rest)-size) {
			rest, err = nil, errRecord
			return ""
		}
		text, rest = string(rest[size:size+int(n)]), rest[size+int(n):]
		return text
	}
	for len(rest) > 0 {
		r.inputs = append(r.inputs, Input{Name: next(), Digest: next(), Shown: next()})
	}
	return r, err
}

// has reports whether the record has an input of that name that is unchanged.
func (r record) has(now []Input, name string) bool {
	for _, in := range condense(r.level, now) {
		for _, old := range r.inputs {
			if in.Name == name && old.Name == name {
				return old.Digest == in.short()
			}
		}
	}
	return false
}

// changes returns the changed inputs by name, for a terminal.
func (r record) changes(now []Input) (all []Change) {
	old := map[string]Input{}
	for _, in := range r.inputs {
		old[in.Name] = in
	}
	for _, in := range condense(r.level, now) {
		was, ok := old[in.Name]
		delete(old, in.Name)
		switch {
		case !ok:
			all = append(all, Change{Name: in.Name, To: in.shown()})
		case was.Digest != in.short():
			c := Change{Name: in.Name, From: was.shown(), To: in.shown()}
			if was.Shown == "" || in.Shown == "" { // compare like with like
				c.From, c.To = was.short(), in.short()
			}
			all = append(all, c)
		}
	}
	for _, in := range old {
		all = append(all, Change{Name: in.Name, From: in.shown()})
	}
	for i, c := range all {
		all[i] = Change{prose.Printable(c.Name), prose.Printable(c.From), prose.Printable(c.To)}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}
