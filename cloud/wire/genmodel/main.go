// Command genmodel writes the part of a service's API model that the embedded cloud
// supports: the operations that a service answers, and the shapes that they refer to,
// without documentation.
//
//	go run ./cloud/wire/genmodel -in service-2.json -actions cloud/ec2/api.go -out cloud/wire/model/ec2.json
//
// It then compresses the output's folder to model.zip next to the folder, which is
// embedded in the program. With -out alone, it only compresses.
//
// The input is the service-2.json (or service-2.json.gz) of botocore, which Debian has in
// the packages python3-botocore and awscli.
package main

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"bake/cloud/wire"
)

func main() {
	add := flag.Bool("add", false, "keep what -out has, and take from -in only what it lacks: for an older -in")
	in := flag.String("in", "", "botocore's service-2.json, plain or gzip; none: the models are only compressed")
	actions := flag.String("actions", "", "Go file whose lines name the actions: \"Name\": wire.Answer(…")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	if err := run(*in, *actions, *out, *add); err != nil {
		fmt.Fprintln(os.Stderr, "genmodel:", err)
		os.Exit(1)
	}
}

// source is the part of botocore's format that genmodel uses.
type source struct {
	Metadata struct {
		APIVersion     string `json:"apiVersion"`
		EndpointPrefix string `json:"endpointPrefix"`
		Protocol       string `json:"protocol"`
		XMLNamespace   string `json:"xmlNamespace"`
		TargetPrefix   string `json:"targetPrefix"`
	} `json:"metadata"`
	Operations map[string]struct {
		Input  *ref `json:"input"`
		Output *ref `json:"output"`
	} `json:"operations"`
	Shapes map[string]struct {
		Type     string         `json:"type"`
		Members  map[string]ref `json:"members"`
		Member   ref            `json:"member"` // element of a list
		Value    ref            `json:"value"`  // value of a map
		Required []string       `json:"required"`
		Min      *float64       `json:"min"`
		Max      *float64       `json:"max"`
	} `json:"shapes"`
}

type ref struct {
	Shape         string `json:"shape"`
	LocationName  string `json:"locationName"`
	QueryName     string `json:"queryName"`
	ResultWrapper string `json:"resultWrapper"`
}

func run(in, actions, out string, add bool) error {
	if in == "" {
		return compress(filepath.Dir(out))
	}
	src, err := read(in)
	if err != nil {
		return err
	}
	table, err := os.ReadFile(actions)
	if err != nil {
		return err
	}
	model := wire.Model{
		License:    "Derived from the API models of botocore, Copyright Amazon.com, Inc. or its affiliates, licensed under the Apache License, Version 2.0; reduced to names and shapes.",
		Service:    src.Metadata.EndpointPrefix,
		Version:    src.Metadata.APIVersion,
		Protocol:   src.Metadata.Protocol,
		Namespace:  src.Metadata.XMLNamespace,
		Target:     src.Metadata.TargetPrefix,
		Operations: map[string]wire.Operation{},
		Shapes:     map[string]wire.Shape{},
	}
	if add {
		old, err := os.ReadFile(out)
		if err == nil {
			err = json.Unmarshal(old, &model)
		}
		if err != nil {
			return err
		}
	}
	for _, line := range regexp.MustCompile(`"(\w+)": +wire\.Answer\(`).FindAllStringSubmatch(string(table), -1) {
		action := line[1]
		if _, kept := model.Operations[action]; kept {
			continue
		}
		op, ok := src.Operations[action]
		if !ok {
			return fmt.Errorf("%s: the model has no operation %s", in, action)
		}
		var o wire.Operation
		if op.Input != nil {
			o.Input = op.Input.Shape
			src.reach(o.Input, model.Shapes)
		}
		if op.Output != nil {
			o.Output, o.Wrapper = op.Output.Shape, op.Output.ResultWrapper
			src.reach(o.Output, model.Shapes)
		}
		model.Operations[action] = o
	}
	if err := write(out, model); err != nil {
		return err
	}
	return compress(filepath.Dir(out))
}

// compress creates the archive of a folder of models. It omits times, so that the same
// models give the same archive.
func compress(dir string) error {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		to, err := w.Create(filepath.Base(name))
		if err != nil {
			return err
		}
		if _, err := to.Write(text); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(dir+".zip", b.Bytes(), 0o644)
}

// read parses a service-2.json, which may be compressed.
func read(name string) (*source, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var src source
	if !strings.HasSuffix(name, ".gz") {
		return &src, json.Unmarshal(data, &src)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &src, json.NewDecoder(z).Decode(&src)
}

// reach adds the shape with that name, and the shapes that it refers to, to shapes.
// Scalars are not added: members name their kind instead.
func (src *source) reach(name string, shapes map[string]wire.Shape) {
	if _, done := shapes[name]; done {
		return
	}
	s := src.Shapes[name]
	switch s.Type {
	case "structure":
		shape := wire.Shape{Members: map[string]wire.Member{}, Required: slices.Sorted(slices.Values(s.Required))}
		shapes[name] = shape
		for member, r := range s.Members {
			m := src.member(r)
			field := strings.ToUpper(member[:1]) + member[1:] // the name in the SDK's struct
			if field != member && m.Location == "" {
				m.Location = member
			}
			shape.Members[field] = m
			src.reach(r.Shape, shapes)
		}
	case "list":
		m := src.member(s.Member)
		shapes[name] = wire.Shape{List: &m}
		src.reach(s.Member.Shape, shapes)
	case "map":
		m := src.member(s.Value)
		shapes[name] = wire.Shape{Map: &m}
		src.reach(s.Value.Shape, shapes)
	}
}

func (src *source) member(r ref) wire.Member {
	m := wire.Member{Shape: r.Shape, Location: r.LocationName, Query: r.QueryName}
	s := src.Shapes[r.Shape]
	switch s.Type {
	case "structure", "list", "map":
	default:
		m.Shape = s.Type
	}
	if src.Metadata.Protocol == "json" { // services with a query protocol check less, and their messages differ
		m.Min, m.Max = s.Min, s.Max
	}
	return m
}

// write writes each shape on a line of its own, so that diffs are readable.
func write(name string, m wire.Model) error {
	var b bytes.Buffer
	head := []struct{ key, value string }{
		{"license", m.License}, {"service", m.Service}, {"version", m.Version},
		{"protocol", m.Protocol}, {"namespace", m.Namespace}, {"target", m.Target},
	}
	b.WriteString("{\n")
	for _, h := range head {
		if h.value == "" {
			continue
		}
		fmt.Fprintf(&b, "%q: %q,\n", h.key, h.value)
	}
	if err := section(&b, "operations", m.Operations); err != nil {
		return err
	}
	b.WriteString(",\n")
	if err := section(&b, "shapes", m.Shapes); err != nil {
		return err
	}
	b.WriteString("\n}\n")
	return os.WriteFile(name, b.Bytes(), 0o644)
}

func section[T any](b *bytes.Buffer, name string, values map[string]T) error {
	fmt.Fprintf(b, "%q: {", name)
	separator := "\n"
	keys := make([]string, 0, len(values))
	for k := range values {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		line, err := json.Marshal(values[k])
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "%s%q: %s", separator, k, line)
		separator = ",\n"
	}
	b.WriteString("\n}")
	return nil
}
