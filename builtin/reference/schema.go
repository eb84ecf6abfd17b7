package reference

import (
	"strings"

	"bake/config/schema"
)

// node is a part of a JSON schema.
type node map[string]any

// JSONSchema is a JSON schema of templates in JSON (*.pkr.json), for editors. Every value can
// also be a text with ${...} in it, and every block an array of blocks.
func JSONSchema(refs []Component) any {
	defs := node{}
	of := func(kind string) node { // the components of a kind, by name
		all := node{}
		for _, r := range refs {
			if r.Kind == kind {
				defs[kind+"."+r.Name] = body(r, refs)
				all[r.Name] = blocks(node{"$ref": "#/definitions/" + kind + "." + r.Name})
			}
		}
		return all
	}
	labelled := func(kind string) node { // type -> name -> options
		all := node{}
		for name, options := range of(kind) {
			all[name] = blocks(node{"type": "object", "additionalProperties": options})
		}
		return blocks(node{"type": "object", "properties": all})
	}
	packer, variable, local, build := blockOf(refs, "packer"), blockOf(refs, "variable"), blockOf(refs, "local"), blockOf(refs, "build")
	inBuild := body(build, nil)
	for _, name := range []string{"provisioner", "error-cleanup-provisioner"} {
		inBuild["properties"].(node)[name] = blocks(node{"type": "object", "properties": of("provisioner")})
	}
	chain := blocks(node{"type": "object", "properties": of("post-processor")})
	inBuild["properties"].(node)["post-processor"] = chain
	inBuild["properties"].(node)["post-processors"] = blocks(node{"type": "object", "properties": node{"post-processor": chain}})
	delete(inBuild["properties"].(node), "source")
	inBuild["additionalProperties"] = true // blocks with labels
	return node{
		"$schema":     "http://json-schema.org/draft-07/schema#",
		"title":       "bake template",
		"description": "A template in JSON (*.pkr.json).",
		"type":        "object",
		"properties": node{
			"packer":   blocks(body(packer, nil)),
			"variable": blocks(node{"type": "object", "additionalProperties": blocks(body(variable, nil))}),
			"local":    blocks(node{"type": "object", "additionalProperties": blocks(body(local, nil))}),
			"locals":   blocks(node{"type": "object"}),
			"data":     labelled("data-source"),
			"source":   labelled("builder"),
			"build":    blocks(inBuild),
		},
		"definitions": defs,
	}
}

// blockOf returns what there is to know of a kind of block.
func blockOf(refs []Component, name string) Component {
	for _, r := range refs {
		if r.Kind == "block" && r.Name == name {
			return r
		}
	}
	return Component{}
}

// body is the schema of a component's options. Of provisioners and post-processors it has
// the arguments that all of them have.
func body(r Component, refs []Component) node {
	options := r.Options
	if all := blockOf(refs, r.Kind); all.Name != "" {
		options = append(append([]schema.Doc(nil), options...), all.Options...)
	}
	n := object(options)
	n["description"] = r.Text
	if r.Kind == "builder" || r.Kind == "data-source" {
		// What is missing in a source can be in a build's own source block.
		delete(n, "required")
	}
	return n
}

func object(options []schema.Doc) node {
	properties := node{"//": node{"description": "A comment."}, "dynamic": node{"description": "Blocks that are made of the elements of a list or map."}}
	var required []string
	for _, d := range options {
		properties[d.Name] = value(d)
		if d.Required {
			required = append(required, d.Name)
		}
	}
	n := node{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		n["required"] = required
	}
	return n
}

// blocks is a block, or an array of blocks.
func blocks(one node) node { return node{"anyOf": []node{one, {"type": "array", "items": one}}} }

// value is the schema of an option.
func value(d schema.Doc) node {
	n := ofType(d.Type)
	if d.Block != nil {
		n = blocks(object(d.Block))
	}
	n["description"] = d.Text
	if d.Default != "" && !strings.HasPrefix(d.Default, "[") {
		n["description"] = d.Text + "\n\nDefault: " + d.Default
	}
	return n
}

// ofType is the schema of values of a type. Where HCL converts, so does it.
func ofType(name string) node {
	scalar := []string{"string", "number", "boolean", "null"}
	if choices, ok := strings.CutPrefix(name, "one of "); ok {
		return node{"anyOf": []node{{"enum": strings.Split(choices, ", ")}, {"type": "string", "pattern": `\$\{`}, {"type": "null"}}}
	}
	switch name {
	case "string":
		return node{"type": scalar}
	case "duration":
		return node{"type": []string{"string", "null"}}
	case "number":
		return node{"type": []string{"number", "string", "null"}}
	case "bool":
		return node{"type": []string{"boolean", "string", "null"}}
	}
	if of, ok := strings.CutPrefix(name, "list of "); ok {
		return node{"type": []string{"array", "string", "null"}, "items": ofType(of)}
	}
	if of, ok := strings.CutPrefix(name, "map of "); ok {
		return node{"type": []string{"object", "string", "null"}, "additionalProperties": ofType(of)}
	}
	return node{} // of any type
}
