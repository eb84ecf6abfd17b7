package lang_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"bake/config/lang"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// evaluate returns the value of an expression as JSON, or its error.
func evaluate(t *testing.T, w lang.World, text string, vars map[string]cty.Value) string {
	t.Helper()
	expr, diags := hclsyntax.ParseExpression([]byte(text), "test", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%s: %s", text, diags)
	}
	val, diags := expr.Value(&hcl.EvalContext{Functions: lang.Functions(w), Variables: vars})
	if diags.HasErrors() {
		return "error: " + diags[0].Detail
	}
	if !val.IsWhollyKnown() {
		return "unknown"
	}
	b, err := ctyjson.Marshal(val, val.Type())
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return string(b)
}

func testWorld(t *testing.T) lang.World {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"cwd/t/a.txt":      "hello\n",
		"cwd/t/sub/b.txt":  "b",
		"cwd/t/set/!.txt":  "",
		"cwd/t/set/a.txt":  "",
		"cwd/t/set/b.txt":  "",
		"cwd/t/bytes":      "\xff\xfe",
		"cwd/t/hi.tpl":     "hi ${name}%{ for x in list } ${x}%{ endfor }",
		"cwd/t/whole.tpl":  "${list}",
		"cwd/t/nested.tpl": `${templatefile("hi.tpl", {})}`,
		"cwd/t/broken.tpl": "${",
		"cwd/here.txt":     "here",
		"home/secret.txt":  "home",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return lang.World{
		BaseDir: "t", Cwd: filepath.Join(dir, "cwd"), Getenv: func(name string) string { return map[string]string{"HOME": filepath.Join(dir, "home")}[name] },
		Start: start, Now: func() time.Time { return start.Add(time.Hour) },
	}
}

func TestFunctions(t *testing.T) {
	w := testWorld(t)
	tests := []struct{ expr, want string }{
		{`abs(-3)`, `3`}, {`ceil(1.2)`, `2`}, {`floor(1.8)`, `1`}, {`log(8, 2)`, `3`},
		{`max(1, 3, 2)`, `3`}, {`min(2, 1)`, `1`}, {`parseint("ff", 16)`, `255`}, {`pow(2, 10)`, `1024`}, {`signum(-7)`, `-1`},
		{`sum([1, 2, 3.5])`, `6.5`}, {`sum([])`, `error: must not be empty`}, {`sum(["a"])`, `error: must contain only numbers`}, {`sum({a = 1})`, `error: must be a list`},

		{`chomp("a\n\n")`, `"a"`}, {`endswith("packer", "er")`, `true`}, {`endswith("packer", "x")`, `false`},
		{`format("%s-%03d", "a", 7)`, `"a-007"`}, {`formatlist("%s!", ["a", "b"])`, `["a!","b!"]`}, {`indent(2, "a\nb")`, `"a\n  b"`},
		{`join(", ", ["a", "b"])`, `"a, b"`}, {`lower("ABC")`, `"abc"`}, {`upper("abc")`, `"ABC"`}, {`title("hello world")`, `"Hello World"`},
		{`regex("[a-z]+", "12ab34")`, `"ab"`}, {`regex("(?P<n>\\d+)", "a12")`, `{"n":"12"}`}, {`regexall("\\d", "a1b2")`, `["1","2"]`},
		{`regex_replace("2026-01-02T03:04:05Z", "[- TZ:]", "")`, `"20260102030405"`},
		{`replace("a.b.c", ".", "-")`, `"a-b-c"`}, {`replace("/a/", "/a/", "x")`, `"x"`}, {`split(",", "a,b")`, `["a","b"]`},
		{`startswith("packer", "pa")`, `true`}, {`strcontains("packer", "ck")`, `true`}, {`strcontains("packer", "kc")`, `false`}, {`strrev("abc")`, `"cba"`}, {`substr("hello", 1, 3)`, `"ell"`},
		{`trim("?!hi?!", "!?")`, `"hi"`}, {`trimprefix("v1.2", "v")`, `"1.2"`}, {`trimsuffix("a.txt", ".txt")`, `"a"`}, {`trimspace("  a ")`, `"a"`},

		{`alltrue([true, true])`, `true`}, {`alltrue([])`, `true`}, {`alltrue([true, false])`, `false`}, {`alltrue(["true", null])`, `false`}, {`anytrue([])`, `false`}, {`anytrue([false, true])`, `true`}, {`anytrue([null])`, `false`},
		{`chunklist(["a", "b", "c"], 2)`, `[["a","b"],["c"]]`},
		{`coalesce("", null, "x", "y")`, `"x"`}, {`coalesce(null, 0)`, `0`}, {`coalesce("", null)`, `error: every argument is null or an empty string`},
		{`coalescelist([], ["a"])`, `["a"]`}, {`compact(["a", "", "b"])`, `["a","b"]`}, {`concat(["a"], ["b", "c"])`, `["a","b","c"]`}, {`contains(["a"], "a")`, `true`},
		{`distinct(["a", "b", "a"])`, `["a","b"]`}, {`element(["a", "b"], 3)`, `"b"`}, {`flatten([["a"], ["b", ["c"]]])`, `["a","b","c"]`},
		{`index(["a", "b"], "b")`, `1`}, {`index(["a"], "b")`, `error: the list does not have this value`}, {`index([], "b")`, `error: the list does not have this value`}, {`index({}, "b")`, `error: must be a list or tuple`},
		{`keys({b = 1, a = 2})`, `["a","b"]`}, {`values({b = 1, a = 2})`, `[2,1]`},
		{`length([1, 2])`, `2`}, {`length("héllo")`, `5`}, {`length({a = 1})`, `1`}, {`length(convert(["a", "a"], set(string)))`, `1`}, {`length(3)`, `error: must be a string, a collection or an object`},
		{`lookup({a = "x"}, "a", "d")`, `"x"`}, {`lookup({a = "x"}, "b", "d")`, `"d"`}, {`merge({a = 1}, {b = 2}, {a = 3})`, `{"a":3,"b":2}`},
		{`range(3)`, `[0,1,2]`}, {`range(1, 7, 3)`, `[1,4]`}, {`reverse(["a", "b"])`, `["b","a"]`},
		{`setintersection(["a", "b"], ["b", "c"])`, `["b"]`}, {`setproduct(["a"], ["x", "y"])`, `[["a","x"],["a","y"]]`}, {`setunion(["a"], ["b"])`, `["a","b"]`},
		{`slice(["a", "b", "c"], 1, 3)`, `["b","c"]`}, {`sort(["b", "a"])`, `["a","b"]`}, {`zipmap(["a", "b"], [1, 2])`, `{"a":1,"b":2}`},

		{`base64encode("héllo")`, `"aMOpbGxv"`}, {`base64decode("aMOpbGxv")`, `"héllo"`}, {`base64decode("!")`, `error: is not base64`}, {`base64decode("/w==")`, `error: contains bytes that are not UTF-8 text`},
		{`csvdecode("a,b\n1,2\n")`, `[{"a":"1","b":"2"}]`}, {`jsondecode("{\"a\":[1]}")`, `{"a":[1]}`}, {`jsonencode({a = [1, null]})`, `"{\"a\":[1,null]}"`},
		{`urlencode("a b&c")`, `"a+b%26c"`}, {`yamldecode("a: [1, x]")`, `{"a":[1,"x"]}`}, {`yamlencode({a = ["x"]})`, `"\"a\":\n- \"x\"\n"`},
		{`textencodebase64("hi", "UTF-16LE")`, `"aABpAA=="`}, {`textdecodebase64("aABpAA==", "UTF-16LE")`, `"hi"`}, {`textencodebase64("hi", "klingon")`, `error: "klingon" is not the IANA name of a character encoding`}, {`textdecodebase64("!", "UTF-8")`, `error: the first argument is not base64`},
		{`textencodebase64("€", "ISO-8859-1")`, `error: the text has characters that ISO-8859-1 cannot represent`},

		{`abspath("x/../y")`, `"` + w.Cwd + `/y"`}, {`abspath("/x/./y")`, `"/x/y"`}, {`basename("/a/b.txt")`, `"b.txt"`}, {`dirname("/a/b.txt")`, `"/a"`},
		{`pathexpand("~/x")`, `"` + w.Getenv("HOME") + `/x"`}, {`pathexpand("x")`, `"x"`}, {`pathexpand("~root/x")`, `error: the home directory of another user`},
		{`file("a.txt")`, `"hello\n"`}, {`file("~/secret.txt")`, `"home"`}, {`file("absent")`, `error: open`}, {`file("bytes")`, `error: ` + w.Cwd + `/t/bytes is not UTF-8 text`}, {`file("here.txt")`, `error: open`},
		{`filebase64("here.txt")`, `"aGVyZQ=="`}, {`filebase64("a.txt")`, `error: open`}, {`filebase64("t/bytes")`, `"//4="`},
		{`fileexists("a.txt")`, `true`}, {`fileexists("absent")`, `false`}, {`fileexists("sub")`, `error: ` + w.Cwd + `/t/sub is not a regular file`},
		{`yamldecode("[1_000, 0b1, 0x1F, 0o17, 017, 1.5_0, -0b1]")`, `[1000,1,"0x1F","0o17",17,1.5,-1]`}, {`yamldecode("null")`, `null`},
		{`base64gzip("hello hello hello hello")`, `"H4sIAAAAAAAA/8pIzcnJV8AgAQAAAP//AQAA///jUT2NFwAAAA=="`},
		{`contains(["a"], null)`, `error: must not be null`}, {`contains(["a", "b"], "b")`, `true`}, {`contains([1], "a")`, `false`}, {`contains([], null)`, `error: must not be null`},
		{`fileset("sub", "../*.txt")`, `["../a.txt"]`}, {`fileset("sub", "../sub/*.txt")`, `["b.txt"]`}, {`fileset(".", "sub/../*.txt")`, `["a.txt"]`}, {`fileset("sub", "../../t/a*")`, `["../a.txt"]`},
		{`fileset(".", "/a.txt")`, `["a.txt"]`}, {`fileset("sub", "**/")`, `["b.txt"]`}, {`fileset("sub", "/")`, `[]`}, {`fileset("sub", "..")`, `[]`},
		{`fileset(".", "./a.txt")`, `["a.txt"]`}, {`fileset("set", "[!a].txt")`, `["!.txt","a.txt"]`}, {`fileset("set", "[^a].txt")`, `["!.txt","b.txt"]`}, {`fileset("set", "{[!b],x}.txt")`, `["!.txt","b.txt"]`},
		{`fileset(".", "**/*.txt") == fileset("../t", "**/*.txt")`, `true`},
		{`fileset(".", "{a,sub/*}.txt")`, `["a.txt","sub/b.txt"]`}, {`fileset("sub", "*")`, `["b.txt"]`}, {`fileset(".", "s*")`, `[]`}, {`fileset(".", "[")`, `error: "[" is not a valid pattern`},
		{`templatefile("hi.tpl", { name = "you", list = [1, 2] })`, `"hi you 1 2"`}, {`templatefile("whole.tpl", { list = [1, 2] })`, `[1,2]`},
		{`templatefile("hi.tpl", { name = "you" })`, `error: t`}, {`templatefile("nested.tpl", {})`, `error:`}, {`templatefile("broken.tpl", {})`, `error:`}, {`templatefile("hi.tpl", { "a b" = 1 })`, `error: "a b" cannot be the name of a value`},
		{`templatefile("hi.tpl", "x")`, `error: must be a map or object`},

		{`timestamp()`, `"2026-01-02T04:04:05Z"`}, {`timeadd("2026-01-02T03:04:05Z", "1h")`, `"2026-01-02T04:04:05Z"`}, {`formatdate("YYYYMMDD-hhmm", "2026-01-02T03:04:05Z")`, `"20260102-0304"`},
		{`legacy_isotime()`, `"2026-01-02T03:04:05Z"`}, {`legacy_isotime("060102")`, `"260102"`}, {`legacy_strftime("%Y-%j")`, `"2026-002"`}, {`legacy_strftime("%J")`, `"%J"`}, {`legacy_isotime("a", "b")`, `error: at most one layout`},
		{`rfc3339_parse("2026-01-02 03:04:05.5Z").unix`, `1767323045`}, {`rfc3339_parse("2026-01-02T03:04:05Z").month_name`, `"January"`}, {`rfc3339_parse("x")`, `error: "x" is not a time`},
		{`unix_timestamp_parse(1767323045).rfc3339`, `"2026-01-02T03:04:05Z"`}, {`unix_timestamp_parse(1767323045).weekday_name`, `"Friday"`}, {`unix_timestamp_parse(1.5)`, `error: must be a whole number of seconds`},

		{`md5("a")`, `"0cc175b9c0f1b6a831c399e269772661"`}, {`sha1("a")`, `"86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"`},
		{`sha256("a")`, `"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"`}, {`substr(sha512("a"), 0, 8)`, `"1f40fc92"`},
		{`length(uuidv4())`, `36`}, {`uuidv5("dns", "example.com")`, `"cfbff0d1-9375-5685-968c-48ce8b15ae17"`}, {`uuidv5("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "example.com")`, `"cfbff0d1-9375-5685-968c-48ce8b15ae17"`}, {`uuidv5("x", "y")`, `error: the namespace must be`},
		{`length(bcrypt("a", 4))`, `60`}, {`bcrypt("a", 4, 5)`, `error: bcrypt takes a string and at most one cost`}, {`bcrypt("a", 99)`, `error:`},
		{`rsadecrypt("!", "x")`, `error: the ciphertext is not base64`}, {`rsadecrypt("aaaa", "x")`, `error: the key is not an unencrypted private key in PEM`},

		{`cidrhost("10.1.2.240/28", 5)`, `"10.1.2.245"`}, {`cidrhost("10.1.0.0/16", -1)`, `"10.1.255.255"`}, {`cidrhost("10.1.2.240/28", 16)`, `error: prefix 10.1.2.240/28 has no host with this number`}, {`cidrhost("fd00::/64", 34)`, `"fd00::22"`}, {`cidrhost("x", 1)`, `error: "x" is not a prefix`},
		{`cidrnetmask("172.16.0.0/12")`, `"255.240.0.0"`}, {`cidrnetmask("fd00::/8")`, `error: must be an IPv4 prefix`},
		{`cidrsubnet("172.16.0.0/12", 4, 2)`, `"172.18.0.0/16"`}, {`cidrsubnet("fd00:fd12:3456:7890::/56", 16, 162)`, `"fd00:fd12:3456:7800:a200::/72"`}, {`cidrsubnet("10.0.0.0/8", 2, 4)`, `error: prefix 10.0.0.0/8 has only 4 subnets of /10`}, {`cidrsubnet("10.0.0.0/30", 3, 0)`, `error: prefix 10.0.0.0/30 can be extended by at most 2 bits`},
		{`cidrsubnets("10.1.0.0/16", 4, 4, 8, 4)`, `["10.1.0.0/20","10.1.16.0/20","10.1.32.0/24","10.1.48.0/20"]`}, {`cidrsubnets("10.0.0.0/8")`, `[]`}, {`cidrsubnets("10.0.0.0/31", 1, 1, 1)`, `error: prefix 10.0.0.0/31 has no room for another /32`},

		{`can(1 + "a")`, `false`}, {`convert("3", number)`, `3`}, {`convert(["a", "a"], set(string))`, `["a"]`}, {`try(1 + "a", 7)`, `7`},
		{`length(base64gzip("a")) > 20`, `true`}, {`floor(1 / 3)`, `0`},
		{`file("t/a.txt")`, `error: no such file or directory; paths start at the directory of the template here, so leave out ${path.root}/`}, {`templatefile("t/hi.tpl", {})`, `error: leave out ${path.root}/`},
		{`indent(999999999999, "a\nb")`, `error: must be from 0 to 9999`}, {`indent(-1, "a\nb")`, `error: must be from 0 to 9999`}, {`format("%99999999999s", "x")`, `error: width or precision`}, {`formatlist("%-12345d", [1])`, `error: width or precision`},
		{`length(format("%9999s", "x"))`, `9999`}, {`setproduct(range(1000), range(1000))`, `error: more than 100000 elements`}, {`bcrypt("x", 31)`, `error: must be at most 16`},
		{`file("/dev/zero")`, `error: /dev/zero is not a regular file but a device`}, {`filebase64("/dev/tty")`, `error: not a regular file`}, {`templatefile("sub", {})`, `error: not a regular file but a directory`}, {`yamldecode("a: &a [*a]")`, `error: inside its own definition`}, {`range(0, 2000)`, `error: more than 1024 values`},
	}
	for _, test := range tests {
		got := evaluate(t, w, test.expr, nil)
		if reason, fails := strings.CutPrefix(test.want, "error:"); fails && strings.HasPrefix(got, "error:") && strings.Contains(got, strings.TrimSpace(reason)) {
			continue
		}
		if got != test.want {
			t.Errorf("%s = %s, want %s", test.expr, got, test.want)
		}
	}
	tested := map[string]bool{}
	for _, test := range tests {
		for _, m := range regexp.MustCompile(`([a-z][a-z0-9_]*)\(`).FindAllStringSubmatch(test.expr, -1) {
			tested[m[1]] = true
		}
	}
	for name := range lang.Functions(w) {
		if remote := slices.Contains([]string{"vault", "consul_key", "aws_secretsmanager", "aws_secretsmanager_raw"}, name); !tested[name] && !remote {
			t.Errorf("%s is not tested", name)
		}
	}
}

// TestUnknownArguments: functions accept unknown values.
func TestUnknownArguments(t *testing.T) {
	w := testWorld(t)
	vars := map[string]cty.Value{
		"text": cty.UnknownVal(cty.String), "any": cty.DynamicVal,
		"list": cty.ListVal([]cty.Value{cty.UnknownVal(cty.String)}), "bools": cty.ListVal([]cty.Value{cty.UnknownVal(cty.Bool), cty.True}),
		"numbers": cty.UnknownVal(cty.List(cty.Number)),
	}
	for expr, want := range map[string]string{
		`upper(text)`: "unknown", `file(text)`: "unknown", `coalesce(text, "x")`: "unknown", `coalesce("x", text)`: `"x"`,
		`templatefile("hi.tpl", { name = text, list = [] })`: "unknown", `templatefile(text, {})`: "unknown", `length(text)`: "unknown", `length(any)`: "unknown", `length(list)`: "1",
		`alltrue(bools)`: "unknown", `anytrue(bools)`: "true", `sum(numbers)`: "unknown", `index(list, "x")`: "unknown", `cidrhost(text, 1)`: "unknown", `cidrsubnets("10.0.0.0/8", any)`: "unknown", `legacy_isotime(text)`: "unknown",
	} {
		if got := evaluate(t, w, expr, vars); got != want {
			t.Errorf("%s = %s, want %s", expr, got, want)
		}
	}
}

// TestSettled: no function returns an unknown value for known arguments, including null.
func TestSettled(t *testing.T) {
	w := testWorld(t)
	values := []cty.Value{
		cty.NullVal(cty.DynamicPseudoType), cty.NullVal(cty.String), cty.StringVal("a"), cty.StringVal(""), cty.StringVal("null"), cty.Zero, cty.True,
		cty.EmptyTupleVal, cty.EmptyObjectVal, cty.TupleVal([]cty.Value{cty.NullVal(cty.DynamicPseudoType)}),
		cty.TupleVal([]cty.Value{cty.StringVal("a"), cty.NullVal(cty.String)}), cty.ListVal([]cty.Value{cty.NullVal(cty.String)}),
		cty.SetVal([]cty.Value{cty.StringVal("a")}), cty.MapVal(map[string]cty.Value{"a": cty.NullVal(cty.String)}),
		cty.ObjectVal(map[string]cty.Value{"a": cty.NullVal(cty.DynamicPseudoType)}),
	}
	later := []string{"aws_secretsmanager", "aws_secretsmanager_raw"} // known only when a build runs
	for name, f := range lang.Functions(w) {
		n := len(f.Params())
		if f.VarParam() != nil {
			n++
		}
		if slices.Contains(later, name) || n > 3 || name == "can" || name == "try" || name == "convert" {
			continue
		}
		args := make([]cty.Value, n)
		var call func(i int)
		call = func(i int) {
			if i < n {
				for _, v := range values {
					args[i] = v
					call(i + 1)
				}
				return
			}
			if v, err := f.Call(args); err == nil && !v.IsWhollyKnown() {
				t.Errorf("%s(%#v) = %#v", name, args, v)
			}
		}
		call(0)
	}
}

func TestRSADecrypt(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := rsa.EncryptPKCS1v15(rand.Reader, &key.PublicKey, []byte("hunter2")) //nolint:staticcheck // what the function is defined as
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	expr := fmt.Sprintf("rsadecrypt(%q, %q)", base64.StdEncoding.EncodeToString(sealed), text)
	if got := evaluate(t, testWorld(t), expr, nil); got != `"hunter2"` {
		t.Errorf("rsadecrypt = %s, want \"hunter2\"", got)
	}
}

func TestDidYouMean(t *testing.T) {
	names := []string{"region", "instance_type", "a"}
	for name, want := range map[string]string{
		"regoin": ` Did you mean "region"?`, "instance-type": ` Did you mean "instance_type"?`, "x": "", "zzz": "", "b": "",
	} {
		if got := lang.DidYouMean(name, names); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !slices.Equal(names, []string{"region", "instance_type", "a"}) {
		t.Error("the names were changed")
	}
}

// FuzzAddresses: the subnets that cidrsubnets returns have the right length, lie in the prefix,
// and do not overlap.
func FuzzAddresses(f *testing.F) {
	f.Add("10.0.0.0/8", 4, 9, 2, int64(5))
	f.Add("fd00::/56", 8, 1, 70, int64(-1))
	f.Add("::ffff:1.2.3.4/100", 0, 0, 0, int64(1)<<62)
	f.Fuzz(func(t *testing.T, text string, a, b, c int, host int64) {
		vars := map[string]cty.Value{
			"prefix": cty.StringVal(text), "host": cty.NumberIntVal(host),
			"a": cty.NumberIntVal(int64(a)), "b": cty.NumberIntVal(int64(b)), "c": cty.NumberIntVal(int64(c)),
		}
		whole, err := netip.ParsePrefix(text)
		in := func(text string) netip.Prefix {
			p, err := netip.ParsePrefix(text)
			if err != nil || !whole.Masked().Contains(p.Addr()) || p.Masked() != p {
				t.Errorf("%s is no subnet of %s: %v", text, whole, err)
			}
			return p
		}
		got := evaluate(t, lang.World{}, "cidrsubnets(prefix, a, b, c)", vars)
		if !strings.HasPrefix(got, "error") {
			if err != nil {
				t.Fatalf("%q is taken for a prefix: %s", text, got)
			}
			var texts []string
			if err := json.Unmarshal([]byte(got), &texts); err != nil {
				t.Fatal(err)
			}
			var nets []netip.Prefix
			for i, text := range texts {
				p := in(text)
				if want := whole.Bits() + []int{a, b, c}[i]; p.Bits() != want {
					t.Errorf("%s is not a /%d", p, want)
				}
				for _, q := range nets {
					if p.Overlaps(q) {
						t.Errorf("%s overlaps %s", p, q)
					}
				}
				nets = append(nets, p)
			}
		}
		if got := evaluate(t, lang.World{}, "cidrhost(prefix, host)", vars); !strings.HasPrefix(got, "error") {
			in(strings.Trim(got, `"`) + "/" + fmt.Sprint(whole.Addr().BitLen()))
		}
		if got := evaluate(t, lang.World{}, "cidrsubnet(prefix, a, host)", vars); !strings.HasPrefix(got, "error") {
			in(strings.Trim(got, `"`))
		}
	})
}

// TestPanics: the error of a function that panics contains the reason, not the stack.
func TestPanics(t *testing.T) {
	w := testWorld(t)
	if err := os.WriteFile(filepath.Join(w.Cwd, "t/log.tpl"), []byte("${log(x, 10)}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`log(-1, 10)`, `pow(-8, 0.5)`, `templatefile("log.tpl", { x = -1 })`} {
		expr, diags := hclsyntax.ParseExpression([]byte(text), "test", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		_, diags = expr.Value(&hcl.EvalContext{Functions: lang.Functions(w)})
		if got := new(lang.Scope).Explain(diags).Error(); !strings.Contains(got, "it has no result for these arguments") || strings.Contains(got, "goroutine") {
			t.Errorf("%s: %s", text, got)
		}
	}
}
