package schema_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"

	"bake/config/schema"
)

type color string

func (color) Choices() []string { return []string{"red", "green"} }

func (c *color) UnmarshalText(b []byte) error {
	return schema.ParseChoice(c, b, c.Choices())
}

type shared struct {
	Region string `hcl:"region,optional"`
}

type volume struct {
	Device string `hcl:"device"`
	Size   int64  `hcl:"size,optional"`
	Fast   *bool  `hcl:"fast,optional"`
}

func (v *volume) SetDefaults() { v.Size = 8 }

func (v *volume) Validate(c *schema.Checker) {
	if v.Size < 1 {
		c.Errorf(&v.Size, "Too small", "A volume has at least 1 GB.")
	}
}

type options struct {
	shared
	Name     string            `hcl:"name"`
	Count    int               `hcl:"count,optional"`
	Ratio    float64           `hcl:"ratio,optional"`
	Public   bool              `hcl:"public,optional"`
	Maybe    *bool             `hcl:"maybe,optional"`
	Needed   string            `hcl:"needed,optional"`
	Wait     time.Duration     `hcl:"wait,optional"`
	Color    color             `hcl:"color,optional"`
	List     []string          `hcl:"list,optional"`
	Codes    []int             `hcl:"codes,optional"`
	Tags     map[string]string `hcl:"tags,optional"`
	Late     string            `hcl:"late,optional,deferred"`
	Password string            `hcl:"password,optional,secret"`
	Keys     map[string]string `hcl:"keys,optional,secret"`
	Any      cty.Value         `hcl:"any,optional"`
	Zero     *int              `hcl:"zero,optional"`
	Empty    *string           `hcl:"empty,optional"`
	Volumes  []volume          `hcl:"volume,block"`
	Root     volume            `hcl:"root,block"`
	Extra    *volume           `hcl:"extra,block"`
}

func (o *options) Validate(c *schema.Checker) {
	if o.Name == "bad" {
		c.Errorf(&o.Name, "Bad name", "%q is bad.", o.Name)
	}
	if c.Set(&o.Count) && o.Count == 3 {
		c.Warnf(&o.Count, "No effect", "Three is the default.")
	}
	if o.Count == 9 && o.Needed == "" {
		c.Errorf(&o.Needed, "Nothing needed", "Set needed.")
	}
}

// body parses HCL, or JSON if it starts with a brace.
func body(t testing.TB, text string) hcl.Body {
	t.Helper()
	var f *hcl.File
	var diags hcl.Diagnostics
	if strings.HasPrefix(text, "{") {
		f, diags = json.Parse([]byte(text), "t.json")
	} else {
		f, diags = hclsyntax.ParseConfig([]byte(text), "t.hcl", hcl.InitialPos)
	}
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return f.Body
}

func defaults() options { return options{Count: 3, Wait: time.Minute, Color: "red"} }

func decode(t testing.TB, text string, vars map[string]cty.Value) (options, *schema.Source, hcl.Diagnostics) {
	t.Helper()
	o := new(options)
	*o = defaults()
	src, diags := schema.Decode(schema.Input{Body: body(t, text), Context: &hcl.EvalContext{Variables: vars}}, o)
	return *o, src, diags
}

func TestDecode(t *testing.T) {
	yes, no := true, false
	tests := []struct {
		name, text string
		want       func(*options)
	}{
		{"defaults", `name = "x"`, func(*options) {}},
		{"all kinds", `
			name   = "x"
			region = "here"
			count  = 5
			ratio  = 0.5
			public = true
			maybe  = false
			wait   = "90s"
			color  = "green"
			list   = ["a", "b"]
			codes  = [0, 1]
			tags   = { a = "b" }
		`, func(o *options) {
			o.Region, o.Count, o.Ratio, o.Public, o.Maybe, o.Wait, o.Color = "here", 5, 0.5, true, &no, 90*time.Second, "green"
			o.List, o.Codes, o.Tags = []string{"a", "b"}, []int{0, 1}, map[string]string{"a": "b"}
		}},
		{"conversions", `
			name   = "x"
			region = 12
			count  = "5"
			public = "true"
			list   = [1, true]
			tags   = { a = 1 }
		`, func(o *options) {
			o.Region, o.Count, o.Public, o.List, o.Tags = "12", 5, true, []string{"1", "true"}, map[string]string{"a": "1"}
		}},
		{"null is unset", `
			name  = "x"
			count = null
			wait  = null
			tags  = null
		`, func(*options) {}},
		{"an empty list is set", `
			name  = "x"
			list  = []
			tags  = {}
		`, func(o *options) { o.List, o.Tags = []string{}, map[string]string{} }},
		{"empty and zero are not set", `
			name   = "x"
			region = ""
			count  = 0
			ratio  = "0"
			wait   = "0s"
			color  = ""
			volume {
				device = "d"
				size   = 0
			}
		`, func(o *options) { o.Volumes = []volume{{Device: "d", Size: 8}} }},
		{"no time is not set", `
			name = "x"
			wait = "0s"
		`, func(*options) {}},
		{"what a pointer holds is set", `
			name  = "x"
			zero  = 0
			empty = ""
		`, func(o *options) { o.Zero, o.Empty = new(int), new(string) }},
		{"blocks", `
			name = "x"
			volume {
				device = "a"
			}
			volume {
				device = "b"
				size   = 20
				fast   = true
			}
			root {
				device = "r"
				size   = 2
			}
			extra {
				device = "e"
			}
		`, func(o *options) {
			o.Volumes = []volume{{Device: "a", Size: 8}, {Device: "b", Size: 20, Fast: &yes}}
			o.Root = volume{Device: "r", Size: 2}
			o.Extra = &volume{Device: "e", Size: 8}
		}},
		{"JSON", `{"name": "x", "count": 4, "volume": [{"device": "a"}, {"device": "b"}], "tags": {"k": "v"}}`, func(o *options) {
			o.Count, o.Tags = 4, map[string]string{"k": "v"}
			o.Volumes = []volume{{Device: "a", Size: 8}, {Device: "b", Size: 8}}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, _, diags := decode(t, test.text, nil)
			if len(diags) > 0 {
				t.Fatal(diags)
			}
			want := defaults()
			want.Name = "x"
			test.want(&want)
			sameValue := cmp.Comparer(func(a, b cty.Value) bool { return a == b })
			if d := cmp.Diff(want, got, cmp.AllowUnexported(options{}), sameValue); d != "" {
				t.Errorf("options (-want +got):\n%s", d)
			}
		})
	}
}

// TestComplaints: errors about wrong arguments, with their lines.
func TestComplaints(t *testing.T) {
	tests := []struct{ text, want string }{
		{`count = 1`, `1: Missing required argument: The argument "name" is required, but no definition was found.`},
		{`name = null`, `1: Missing required argument: The argument "name" is required, but its value is null.`},
		{"name = \"x\"\ncuont = 1", `2: Unsupported argument: An argument named "cuont" is not expected here. Did you mean "count"?`},
		{"name = \"x\"\nvolumes {}", `2: Unsupported block type: Blocks of type "volumes" are not expected here. Did you mean "volume"?`},
		{"name = \"x\"\nvolume = []", `2: Unsupported argument: An argument named "volume" is not expected here. Did you mean to define a block of type "volume"?`},
		{"name = \"x\"\ntags {\n}", `2: Unsupported block type: Blocks of type "tags" are not expected here. Did you mean to define argument "tags"? If so, use the equals sign to assign it a value.`},
		{"name = \"x\"\ncount = \"many\"", `2: Invalid value: Argument "count": a number is required.`},
		{"name = \"x\"\ncount = 1.5", `2: Invalid value: Argument "count": value must be a whole number, between -9223372036854775808 and 9223372036854775807.`},
		{"name = \"x\"\nlist = \"one\"", `2: Invalid value: Argument "list": list of string required, but have string.`},
		{"name = \"x\"\nlist = [[]]", `2: Invalid value: Argument "list": element 0: string required, but have tuple.`},
		{"name = \"x\"\ntags = { a = \"b\", c = [] }", `2: Invalid value: Argument "tags": element "c": string required, but have tuple.`},
		{"name = \"x\"\nwait = \"\"", `2: Invalid value: Argument "wait": "" is not a duration; leave the argument out, or set it to null, if it is not to be set.`},
		{"name = \"x\"\nwait = \"5 minutes\"", `2: Invalid value: Argument "wait": "5 minutes" is not a duration such as "90s" or "5m".`},
		{"name = \"x\"\ncolor = \"blue\"", `2: Invalid value: Argument "color": "blue" is not one of "red", "green".`},
		{"name = \"x\"\nroot {\n device = \"r\"\n size = 1\n}\nroot {\n}", `6: Duplicate block: Only one "root" block is allowed here; the first one is at t.hcl:2,1-5.`},
		{"name = \"bad\"", `1: Bad name: "bad" is bad.`},
		{"name = \"x\"\ncount = 3", `2: No effect: Three is the default.`},
		{"name = \"x\"\ncount = 0", ``},
		{"name = \"x\"\nvolume {\n device = \"d\"\n size = -1\n}", `4: Too small: A volume has at least 1 GB.`},
		{"name = \"x\"\nlist = [\"a\", null]", `2: Null value: Argument "list": the element with index 1 is null. Omit it or set a value.`},
		{"name = \"x\"\ntags = { a = \"b\", c = null }", `2: Null value: Argument "tags": "c" is null. Omit it or set a value.`},
		{"name = \"x\"\nany = { a = null }", ``},
		{"nam = \"x\"\ncount = 9", "1: Unsupported argument: An argument named \"nam\" is not expected here. Did you mean \"name\"?\n1: Nothing needed: Set needed."},
		{"name = \"x\"\ncount = 9\nneded = \"y\"", `3: Unsupported argument: An argument named "neded" is not expected here. Did you mean "needed"?`},
		// One error does not hide another, and none is reported twice.
		{"volume {\n device = \"d\"\n size = -1\n}\nwait = \"soon\"", "1: Missing required argument: The argument \"name\" is required, but no definition was found.\n" +
			"5: Invalid value: Argument \"wait\": \"soon\" is not a duration such as \"90s\" or \"5m\".\n" +
			"3: Too small: A volume has at least 1 GB."},
		{"name = \"bad\"\nwait = \"soon\"", "2: Invalid value: Argument \"wait\": \"soon\" is not a duration such as \"90s\" or \"5m\".\n1: Bad name: \"bad\" is bad."},
		{"name = \"x\"\ncount = 9\nneeded = []", `3: Invalid value: Argument "needed": string required, but have tuple.`},
		{"name = \"x\"\ncount = 9\nneeded {\n}", `3: Unsupported block type: Blocks of type "needed" are not expected here. Did you mean to define argument "needed"? If so, use the equals sign to assign it a value.`},
		{"name = \"x\"\ncount = 9\nneeded = \"\"", `3: Nothing needed: Set needed.`},
		{"name = \"x\"\nvolume {\n size = 5\n}", `2: Missing required argument: The argument "device" is required, but no definition was found.`},
		{"name = var.x", `1: Variables not allowed: Variables may not be used here.`},
	}
	for _, test := range tests {
		_, _, diags := decode(t, test.text, nil)
		var got []string
		for _, d := range diags {
			got = append(got, fmt.Sprintf("%d: %s: %s", d.Subject.Start.Line, d.Summary, d.Detail))
		}
		if joined := strings.Join(got, "\n"); joined != test.want {
			t.Errorf("%s\ngot  %s\nwant %s", test.text, joined, test.want)
		}
	}
}

// TestUnknown: an unknown value is not an error, but a wrong type is.
func TestUnknown(t *testing.T) {
	vars := map[string]cty.Value{"later": cty.UnknownVal(cty.String), "list": cty.UnknownVal(cty.List(cty.String)), "any": cty.DynamicVal}
	o, src, diags := decode(t, "name = later\nlist = [\"a\", later]\ncount = any\nwait = later", vars)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if o.Name != "" || o.List != nil || o.Count != 3 || o.Wait != time.Minute {
		t.Errorf("values that are not known were stored: %+v", o)
	}
	var names []string
	for _, d := range src.Unknowns() {
		names = append(names, d.Detail)
	}
	if len(names) != 4 || !strings.Contains(names[0], `"name"`) {
		t.Errorf("unknown: %q", names)
	}
	if _, _, diags := decode(t, `name = list`, vars); !diags.HasErrors() || diags[0].Summary != "Unsuitable value type" {
		t.Errorf("a list for a string: %v", diags)
	}
}

func TestKnownAndSet(t *testing.T) {
	o := new(options)
	src, diags := schema.Decode(schema.Input{
		Body:    body(t, "name = later\ncount = 5\nmaybe = null"),
		Context: &hcl.EvalContext{Variables: map[string]cty.Value{"later": cty.UnknownVal(cty.String)}},
	}, o)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if src.Known(&o.Name) || !src.Set(&o.Name) || !src.Known(&o.Count) || !src.Set(&o.Count) || src.Set(&o.Maybe) || src.Set(&o.Region) {
		t.Error("which arguments are set and known")
	}
	if src.Name(&o.Region) != "region" || src.Range(&o.Count).Start.Line != 2 {
		t.Errorf("Name and Range = %q, %v, want region and a range that starts in line 2", src.Name(&o.Region), src.Range(&o.Count))
	}
	err := src.Errorf(&o.Count, "Too many", "%d are too many.", o.Count)
	var placed hcl.Diagnostics
	if !errors.As(err, &placed) || placed[0].Subject.Start.Line != 2 || placed[0].Detail != "5 are too many." {
		t.Error(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("the address of something else is taken for an option")
		}
	}()
	other := 0
	src.Range(&other)
}

// TestRender: strings are rendered once, including map keys; deferred ones are only checked.
func TestRender(t *testing.T) {
	var seen []string
	o := new(options)
	_, diags := schema.Decode(schema.Input{
		Body:    body(t, "name = \"{{a}}\"\nlist = [\"{{b}}\", \"plain\"]\ntags = { \"{{k}}\" = \"{{v}}\" }\nlate = \"{{later}}\""),
		Context: &hcl.EvalContext{},
		Render: func(s string, deferred bool) (string, error) {
			seen = append(seen, s)
			if deferred {
				return s, nil
			}
			return "<" + strings.Trim(s, "{}") + ">", nil
		},
	}, o)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if o.Name != "<a>" || !slices.Equal(o.List, []string{"<b>", "plain"}) || !maps.Equal(o.Tags, map[string]string{"<k>": "<v>"}) || o.Late != "{{later}}" {
		t.Errorf("%+v", o)
	}
	if slices.Sort(seen); !slices.Equal(seen, []string{"{{a}}", "{{b}}", "{{k}}", "{{later}}", "{{v}}"}) {
		t.Errorf("rendered: %q", seen)
	}
	_, diags = schema.Decode(schema.Input{
		Body:    body(t, `name = "{{a}}"`),
		Context: &hcl.EvalContext{},
		Render:  func(string, bool) (string, error) { return "", errors.New("no") },
	}, new(options))
	if !diags.HasErrors() || diags[0].Summary != "Invalid {{ }} template" {
		t.Errorf("diagnostics = %v, want an invalid {{ }} template", diags)
	}
}

func TestSecret(t *testing.T) {
	var secrets []string
	_, diags := schema.Decode(schema.Input{
		Body:    body(t, "name = \"x\"\npassword = \"hunter2\"\nkeys = { a = \"one\", b = \"two\", c = \"\" }"),
		Context: &hcl.EvalContext{},
		Secret:  func(s string) { secrets = append(secrets, s) },
	}, new(options))
	if slices.Sort(secrets); diags.HasErrors() || !slices.Equal(secrets, []string{"hunter2", "one", "two"}) {
		t.Errorf("secrets = %q, want hunter2, one and two; diagnostics: %v", secrets, diags)
	}
}

const documented = `package schema_test

type shared struct {
	// Where it is.
	Region string
}

type volume struct {
	// Name of the device.
	Device string
	// Size in GB.
	Size int64
	// Whether it is fast.
	Fast *bool
}

type options struct {
	shared
	// What it is called. It may take
	// two lines.
	Name string
	// How many.
	Count int
	// A share.
	Ratio float64
	// For all to see.
	Public bool
	// Yes, no, or neither.
	Maybe *bool
	// Needed at times.
	Needed string
	// A number, 0 too.
	Zero *int
	// A text, an empty one too.
	Empty *string
	// How long.
	Wait time.Duration
	// Which color.
	Color color
	// Some texts.
	List []string
	// Some numbers.
	Codes []int
	// Names and values.
	Tags map[string]string
	// Rendered late.
	Late string
	// A secret.
	Password string
	// More secrets.
	Keys map[string]string
	// Anything.
	Any cty.Value
	// Disks.
	Volumes []volume
	// The root disk.
	Root volume
	// One more.
	Extra *volume
}
`

// comments are those of documented.
func comments(t *testing.T) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "", documented, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for name, o := range f.Scope.Objects {
		for _, field := range o.Decl.(*ast.TypeSpec).Type.(*ast.StructType).Fields.List {
			for _, id := range field.Names {
				all["bake/config/schema_test."+name+"."+id.Name] = strings.TrimSpace(field.Doc.Text())
			}
		}
	}
	return all
}

// hasty has an option without a comment.
type hasty struct {
	Count int `hcl:"count"`
}

func TestDocs(t *testing.T) {
	docs, err := schema.Docs(defaults(), comments(t))
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]schema.Doc{}
	for _, d := range docs {
		byName[d.Name] = d
	}
	for _, want := range []schema.Doc{
		{Name: "name", Type: "string", Text: "What it is called. It may take\ntwo lines.", Required: true},
		{Name: "region", Type: "string", Text: "Where it is."},
		{Name: "count", Type: "number", Text: "How many.", Default: "3"},
		{Name: "wait", Type: "duration", Text: "How long.", Default: "1m0s"},
		{Name: "color", Type: "one of red, green", Text: "Which color.", Default: "red"},
		{Name: "list", Type: "list of string", Text: "Some texts."},
		{Name: "tags", Type: "map of string", Text: "Names and values."},
		{Name: "maybe", Type: "bool", Text: "Yes, no, or neither."},
		{Name: "password", Type: "string", Text: "A secret.", Secret: true},
	} {
		if d := cmp.Diff(want, byName[want.Name]); d != "" {
			t.Errorf("docs of %s (-want +got):\n%s", want.Name, d)
		}
	}
	volumes := byName["volume"]
	if volumes.Type != "blocks" || len(volumes.Block) != 3 || volumes.Block[1].Default != "8" || byName["root"].Type != "block" {
		t.Errorf("%+v", volumes)
	}
	if _, err := schema.Docs(&struct{ hasty }{}, comments(t)); err == nil || !strings.Contains(err.Error(), "hasty.Count has no doc comment") {
		t.Errorf("an option without a comment: %v", err)
	}
}

// FuzzDecode: a body is decoded, or causes errors with locations.
func FuzzDecode(f *testing.F) {
	f.Add("name = \"x\"\nwait = \"1h\"\nvolume {\n device = \"a\"\n}")
	f.Add("name = [for x in [1]: x]\ncodes = {}\nlist = toset([])")
	f.Add("name = 1\nany = { a = [null, 1e99] }\ncount = 1e99\nmaybe = \"no\"")
	f.Fuzz(func(t *testing.T, text string) {
		file, diags := hclsyntax.ParseConfig([]byte(text), "t.hcl", hcl.InitialPos)
		if diags.HasErrors() {
			return
		}
		_, diags = schema.Decode(schema.Input{Body: file.Body, Context: &hcl.EvalContext{}}, new(options))
		for _, d := range diags {
			if d.Subject == nil {
				t.Errorf("%s: no place", d.Summary)
			}
		}
	})
}
