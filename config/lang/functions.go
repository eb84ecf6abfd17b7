package lang

import (
	"time"

	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	ctyyaml "github.com/zclconf/go-cty-yaml"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// World is the access that functions have to the outside.
type World struct {
	BaseDir string              // what file and its kin start from: the template's directory
	Cwd     string              // absolute; what abspath and filebase64 start from
	Getenv  func(string) string // "" if not set; HOME is the value of ~
	Start   time.Time           // of the run, for the legacy time functions
	Now     func() time.Time    // for timestamp

	// SecretsManager returns the text of a secret of AWS Secrets Manager. Nil: it
	// is not known now.
	SecretsManager func(name string) (string, error)
	// Secret is called with every value that must not be shown. It may be nil.
	Secret func(string)

	// Pipes are the pipes that have been read. Nil: each read begins anew.
	Pipes *Pipes

	// Read is called with what a function has read from files of this host and from
	// servers: the content of a file, or the result of any other query. It may be nil.
	Read func(what, path string, content []byte)
}

// The kinds of reads that [World.Read] receives.
const (
	ReadFile   = "file"
	ReadExists = "whether there is" // a file
	ReadSet    = "file set"         // what matches a pattern
	ReadRemote = "value of"         // the response of a server, which may be a secret
)

func (w World) read(what, path string, content []byte) {
	if w.Read != nil {
		w.Read(what, path, content)
	}
}

// Functions returns the functions of the template language.
func Functions(w World) map[string]function.Function {
	funcs := map[string]function.Function{
		// numbers
		"abs":      stdlib.AbsoluteFunc,
		"ceil":     stdlib.CeilFunc,
		"floor":    stdlib.FloorFunc,
		"log":      stdlib.LogFunc,
		"max":      stdlib.MaxFunc,
		"min":      stdlib.MinFunc,
		"parseint": stdlib.ParseIntFunc,
		"pow":      stdlib.PowFunc,
		"signum":   stdlib.SignumFunc,
		"sum":      sum,

		// strings
		"chomp":         stdlib.ChompFunc,
		"endswith":      endsWith,
		"format":        format,
		"formatlist":    formatList,
		"indent":        indent,
		"join":          stdlib.JoinFunc,
		"lower":         stdlib.LowerFunc,
		"upper":         stdlib.UpperFunc,
		"title":         stdlib.TitleFunc,
		"regex":         stdlib.RegexFunc,
		"regexall":      stdlib.RegexAllFunc,
		"regex_replace": stdlib.RegexReplaceFunc,
		"replace":       stdlib.ReplaceFunc,
		"split":         stdlib.SplitFunc,
		"startswith":    startsWith,
		"strcontains":   strContains,
		"strrev":        stdlib.ReverseFunc,
		"substr":        stdlib.SubstrFunc,
		"trim":          stdlib.TrimFunc,
		"trimprefix":    stdlib.TrimPrefixFunc,
		"trimsuffix":    stdlib.TrimSuffixFunc,
		"trimspace":     stdlib.TrimSpaceFunc,

		// collections
		"alltrue":         allTrue,
		"anytrue":         anyTrue,
		"chunklist":       stdlib.ChunklistFunc,
		"coalesce":        coalesce,
		"coalescelist":    stdlib.CoalesceListFunc,
		"compact":         stdlib.CompactFunc,
		"concat":          stdlib.ConcatFunc,
		"contains":        contains,
		"distinct":        stdlib.DistinctFunc,
		"element":         stdlib.ElementFunc,
		"flatten":         stdlib.FlattenFunc,
		"index":           index,
		"keys":            stdlib.KeysFunc,
		"length":          length,
		"lookup":          stdlib.LookupFunc,
		"merge":           stdlib.MergeFunc,
		"range":           stdlib.RangeFunc,
		"reverse":         stdlib.ReverseListFunc,
		"setintersection": stdlib.SetIntersectionFunc,
		"setproduct":      setProduct,
		"setunion":        stdlib.SetUnionFunc,
		"slice":           stdlib.SliceFunc,
		"sort":            stdlib.SortFunc,
		"values":          stdlib.ValuesFunc,
		"zipmap":          stdlib.ZipmapFunc,

		// encodings
		"base64decode":     base64Decode,
		"base64encode":     base64Encode,
		"base64gzip":       base64Gzip,
		"csvdecode":        stdlib.CSVDecodeFunc,
		"jsondecode":       stdlib.JSONDecodeFunc,
		"jsonencode":       stdlib.JSONEncodeFunc,
		"urlencode":        urlEncode,
		"yamldecode":       yamlDecode,
		"yamlencode":       ctyyaml.YAMLEncodeFunc,
		"textdecodebase64": textDecodeBase64,
		"textencodebase64": textEncodeBase64,

		// time
		"timestamp":            timestamp(w.Now),
		"timeadd":              stdlib.TimeAddFunc,
		"formatdate":           stdlib.FormatDateFunc,
		"legacy_isotime":       legacyIsotime(w.Start),
		"legacy_strftime":      legacyStrftime(w.Start),
		"rfc3339_parse":        rfc3339Parse,
		"unix_timestamp_parse": unixTimestampParse,

		// hashes and ids
		"bcrypt":     bcryptHash,
		"md5":        md5Hex,
		"sha1":       sha1Hex,
		"sha256":     sha256Hex,
		"sha512":     sha512Hex,
		"rsadecrypt": rsaDecrypt,
		"uuidv4":     uuidV4,
		"uuidv5":     uuidV5,

		// addresses
		"cidrhost":    cidrHost,
		"cidrnetmask": cidrNetmask,
		"cidrsubnet":  cidrSubnet,
		"cidrsubnets": cidrSubnets,

		// other servers
		"aws_secretsmanager":     awsSecret(w),
		"aws_secretsmanager_raw": awsSecretRaw(w),
		"consul_key":             text1("key", w.consul(consulKey(w.Getenv))),
		"vault":                  text2("path", "key", w.secret2(vault(w.Getenv))),

		// types and errors
		"can":     tryfunc.CanFunc,
		"convert": typeexpr.ConvertFunc,
		"try":     tryfunc.TryFunc,
	}
	addFileFunctions(funcs, w)
	return funcs
}

// DefaultFunctions returns the only function that the default of a variable may use.
// getenv returns "" for a variable that is not set.
func DefaultFunctions(getenv func(string) string) map[string]function.Function {
	return map[string]function.Function{
		"env": text1("name", func(name string) (string, error) { return getenv(name), nil }),
	}
}

// text1 makes a function of a string to a string.
func text1(param string, f func(string) (string, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: param, Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			s, err := f(args[0].AsString())
			if err != nil {
				return cty.UnknownVal(cty.String), function.NewArgError(0, err)
			}
			return cty.StringVal(s), nil
		},
	})
}

// text2 makes a function of two strings to a string or a bool.
func text2[T string | bool](param1, param2 string, f func(a, b string) (T, error)) function.Function {
	typ, val := cty.String, func(v any) cty.Value { return cty.StringVal(v.(string)) }
	if _, isBool := any(*new(T)).(bool); isBool {
		typ, val = cty.Bool, func(v any) cty.Value { return cty.BoolVal(v.(bool)) }
	}
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: param1, Type: cty.String}, {Name: param2, Type: cty.String}},
		Type:   function.StaticReturnType(typ),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			v, err := f(args[0].AsString(), args[1].AsString())
			if err != nil {
				return cty.UnknownVal(typ), err
			}
			return val(v), nil
		},
	})
}
