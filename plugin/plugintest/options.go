package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"

	"bake/plugin/wire"
)

// options are the common options of all components, most of which use only some of
// them.
type options struct {
	Journal   string   // the file to write to
	Errors    []string // complaints of Prepare
	Warnings  []string
	Generated []string // names of build.* that the builder gives
	Misbehave string   // panic, exit, kill, hang, stubborn, garbage, wrong, huge, error
	At        string   // the call at which to misbehave, such as Prepare

	Text   string
	Number int
	Flag   bool
	Tags   map[string]string
	Disk   []struct{ Name, Size string }
	Net    *struct{ Bridge string }

	Say, Message, Error, Ask string
	Progress                 int // bytes

	Home     string   // directory of the builder's machine, which is this host
	Values   string   // JSON of additional values that the builder provides
	Resource string   // a file that the builder makes, and deletes unless it succeeds
	Commands []string // commands that the provisioner runs
	Upload   []string // FROM, TO
	Download []string // FROM, TO
	UpDir    []string // FROM, TO
	DownDir  []string // FROM, TO
	Late     []string // commands to run after a cancellation

	Files       []string // of the artifact
	Returns     string   // result of the post-processor: input, nothing or a new artifact
	Keep, Force bool
	State       string // values to request from the input
	Huge        int    // length of the artifact's text

	Output string // of the data source: JSON of an object
}

func spec() hcldec.ObjectSpec {
	attr := func(name string, t cty.Type) hcldec.Spec { return &hcldec.AttrSpec{Name: name, Type: t} }
	out := hcldec.ObjectSpec{
		"disk": &hcldec.BlockListSpec{TypeName: "disk", Nested: hcldec.ObjectSpec{"name": attr("name", cty.String), "size": attr("size", cty.String)}},
		"net":  &hcldec.BlockSpec{TypeName: "net", Nested: hcldec.ObjectSpec{"bridge": attr("bridge", cty.String)}},
	}
	list := cty.List(cty.String)
	for name, t := range map[string]cty.Type{
		"journal": cty.String, "errors": list, "warnings": list, "generated": list, "misbehave": cty.String, "at": cty.String,
		"text": cty.String, "number": cty.Number, "flag": cty.Bool, "tags": cty.Map(cty.String), "password": cty.String,
		"say": cty.String, "message": cty.String, "error": cty.String, "ask": cty.String, "progress": cty.Number,
		"home": cty.String, "values": cty.String, "resource": cty.String, "commands": list, "upload": list, "download": list,
		"updir": list, "downdir": list, "late": list,
		"files": list, "returns": cty.String, "keep": cty.Bool, "force": cty.Bool, "state": cty.String, "huge": cty.Number,
		"output": cty.String,
	} {
		out[name] = attr(name, t)
	}
	return out
}

func configSpec(context.Context, any) (any, error) {
	b, err := wire.EncodeSpec(spec())
	return struct{ ConfigSpec []byte }{b}, err
}

// configure reads the options, and records everything that came with them.
func (p *plugin) configure(configs []any) error {
	var notes []string
	for _, c := range configs {
		switch c := c.(type) {
		case nil:
			notes = append(notes, "nil")
		case map[string]any:
			var pairs []string
			for k, v := range c {
				pairs = append(pairs, fmt.Sprintf("%s=%q", k, v))
			}
			sort.Strings(pairs)
			notes = append(notes, strings.Join(pairs, " "))
		case []byte:
			v, err := wire.DecodeConfig(c)
			if err != nil {
				return err
			}
			if err := p.decode(v); err != nil {
				return err
			}
			notes = append(notes, fmt.Sprintf("text=%q number=%d flag=%t tags=%v disks=%v attributes=%d", p.Text, p.Number, p.Flag, p.Tags, p.Disk, len(v.Type().AttributeTypes())))
		default:
			return fmt.Errorf("a configuration is a %T", c)
		}
	}
	p.journal("configured: %s", strings.Join(notes, "; "))
	return nil
}

// decode decodes the options. Field names are those of the arguments, apart from case.
func (p *plugin) decode(v cty.Value) error {
	values := v.AsValueMap()
	for name := range spec() {
		if _, ok := values[name]; !ok {
			return fmt.Errorf("the argument %s is not there", name)
		}
	}
	text, err := json.Marshal(plain(v))
	if err != nil {
		return err
	}
	p.options = options{}
	return json.Unmarshal(text, &p.options)
}

// plain converts a value for JSON, without nulls.
func plain(v cty.Value) any {
	switch {
	case v.IsNull():
		return nil
	case v.Type() == cty.String:
		return v.AsString()
	case v.Type() == cty.Bool:
		return v.True()
	case v.Type() == cty.Number:
		n, _ := v.AsBigFloat().Int64()
		return n
	case v.Type().IsObjectType() || v.Type().IsMapType():
		m := map[string]any{}
		for k, e := range v.AsValueMap() {
			if !e.IsNull() {
				m[k] = plain(e)
			}
		}
		return m
	}
	list := []any{}
	for _, e := range v.AsValueSlice() {
		list = append(list, plain(e))
	}
	return list
}

// complaints returns the errors in the options, joined as in the SDK.
func (p *plugin) complaints() string {
	if len(p.Errors) == 0 {
		return ""
	}
	text := fmt.Sprintf("%d error(s) occurred:\n", len(p.Errors))
	for _, e := range p.Errors {
		text += "\n* " + e
	}
	return text
}
