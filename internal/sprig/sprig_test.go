package sprig_test

import (
	"strings"
	"testing"

	"bake/internal/gotemplate"
	"bake/internal/sprig"
)

// TestFunctions has an example of every function.
func TestFunctions(t *testing.T) {
	tests := []struct{ text, want string }{
		{`{{ hello }}{{ env "A" }}{{ env "B" }}{{ expandenv "-$A${B}-" }}`, "Hello!a-a-"},
		{`{{ abbrev 5 "hello world" }} {{ abbrev 3 "hello" }} {{ abbrevboth 5 10 "1234 5678 9123" }}`, "he... hello ...5678..."},
		{`{{ trunc 2 "abc" }}{{ trunc -2 "abc" }}{{ trunc 9 "abc" }}`, "abbcabc"},
		{`{{ trim " a " }}{{ upper "a" }}{{ lower "B" }}{{ title "hello world" }}{{ untitle "Hello World" }}`, "aAbHello Worldhello world"},
		{`{{ substr 1 3 "abcdef" }} {{ substr -1 3 "abcdef" }} {{ substr 2 -1 "abcdef" }}`, "bc abc cdef"},
		{`{{ repeat 3 "ab" }}{{ trimall "$" "$5$" }}{{ trimAll "$" "$6$" }}{{ trimSuffix "-" "a-" }}{{ trimPrefix "-" "-b" }}`, "ababab56ab"},
		{`{{ nospace " a b " }}{{ initials "First Try" }}{{ swapcase "aBC d" }}`, "abFTAbc D"},
		{`{{ snakecase "FirstName" }} {{ snakecase "HTTPServer no-1" }} {{ kebabcase "FirstName" }} {{ camelcase "http_server" }}`, "first_name http_server_no_1 first-name HttpServer"},
		{`{{ wrap 5 "ab cd ef toolong x" }}|{{ wrapWith 3 "," "abcde f" }}`, "ab cd\nef\ntoolong\nx|abc,de,f"},
		{`{{ contains "b" "abc" }}{{ hasPrefix "a" "abc" }}{{ hasSuffix "a" "abc" }}`, "truetruefalse"},
		{`{{ quote "a\"b" 1 nil }} {{ squote "a" 2 }} {{ cat "a" nil 1 }}`, `"a\"b" "1" 'a' '2' a 1`},
		{`{{ indent 2 "a\nb" }}{{ nindent 1 "c" }}`, "  a\n  b\n c"},
		{`{{ "a-b-c" | replace "-" "+" }}{{ plural "one" "many" 1 }}{{ plural "one" "many" 2 }}{{ toString 1 }}`, "a+b+conemany1"},
		{`{{ $s := split "." "a.b.c" }}{{ $s._1 }}{{ $s := splitn "." 2 "a.b.c" }}{{ $s._1 }}{{ splitList "." "a.b" }}`, "bb.c[a b]"},
		{`{{ duration 95 }} {{ duration "x" }} {{ semverCompare "^1.2" "1.9.0" }}{{ semverCompare ">=2" "v1.9" }}`, "1m35s 0s truefalse"},
		{`{{ sha1sum "a" }}`, "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"}, {`{{ sha256sum "a" | trunc 8 }}{{ sha512sum "a" | trunc 8 }} {{ adler32sum "a" }}`, "ca9781121f40fc92 6422626"},
		{`{{ b64enc "a" }}{{ b64dec "YQ==" }}{{ b32enc "a" }}{{ b32dec "ME======" }}{{ b64dec "!" }}`, "YQ==aME======aillegal base64 data at input byte 0"},
		{`{{ (urlParse "http://u:p@h:1/p?q#f").hostname }} {{ urlJoin (urlParse "http://u:p@h:1/p?q#f") }}`, "h http://u:p@h:1/p?q#f"},
		{`{{ regexQuoteMeta "a.b" }} {{ regexMatch "^a" "abc" }} {{ mustRegexFind "b+" "abbc" }} {{ regexFindAll "[a-c]" "abcd" 2 }} {{ regexSplit "," "a,b,c" -1 }}`, `a\.b true bb [a b] [a b c]`},
		{`{{ regexReplaceAll "a(x*)b" "-ab-axxb-" "${1}W" }} {{ regexReplaceAllLiteral "a(x*)b" "-ab-" "${1}" }}`, "-W-xxW- -${1}-"},
		{`{{ base "/a/b.c" }} {{ dir "/a/b" }} {{ clean "/a//b" }} {{ ext "a.c" }} {{ isAbs "/a" }} {{ osBase "/a/b" }}`, "b.c /a /a/b .c true b"},
		{`{{ atoi "12" }} {{ atoi "x" }} {{ int "3" }} {{ int64 2.7 }} {{ int true }} {{ float64 "1.5" }} {{ toDecimal "0644" }}`, "12 0 3 2 1 1.5 420"},
		{`{{ add1 1 }} {{ add 1 "2" 3 }} {{ sub 5 2 }} {{ mul 2 3 4 }} {{ div 7 2 }} {{ mod 7 2 }} {{ max 1 3 2 }} {{ biggest 1 3 }} {{ min 3 1 2 }}`, "2 6 3 24 3 1 3 3 1"},
		{`{{ maxf 1 2.5 }} {{ minf 1.5 2 }} {{ ceil 1.2 }} {{ floor 1.8 }} {{ round 1.256 2 }} {{ addf 0.1 0.2 }} {{ subf 1 0.5 }} {{ mulf 1.5 2 }} {{ divf 1 4 }} {{ add1f 0.5 }}`, "2.5 1.5 2 1 1.26 0.3 0.5 3 0.25 1.5"},
		{`{{ until 3 }} {{ until -2 }} {{ untilStep 3 9 3 }} {{ seq 3 }} {{ seq -1 }} {{ seq 2 4 }} {{ seq 0 2 5 }} {{ seq 5 2 1 }}`, "[0 1 2] [0 -1] [3 6] 1 2 3 1 0 -1 2 3 4 0 2 4 "},
		{`{{ list 1 "a" }}{{ tuple 1 }}{{ mkSlice 2 }}{{ join "-" (list 1 nil "b") }}{{ join "-" "x" }}{{ toStrings (list 1) }}{{ sortAlpha (list "b" "a") }}`, "[1 a][1][2]1-bx[1][a b]"},
		{`{{ $l := list 1 2 3 2 }}{{ append $l 4 }}{{ push $l 4 }}{{ prepend $l 0 }}{{ first $l }}{{ last $l }}{{ rest $l }}{{ initial $l }}{{ reverse $l }}{{ $l }}`, "[1 2 3 2 4][1 2 3 2 4][0 1 2 3 2]12[2 3 2][1 2 3][2 3 2 1][1 2 3 2]"},
		{`{{ $l := list 1 2 3 2 }}{{ uniq $l }}{{ without $l 2 }}{{ has 3 $l }}{{ has 9 $l }}{{ slice $l 1 3 }}{{ slice $l 2 }}{{ chunk 3 $l }}{{ compact (list 0 1 "") }}{{ concat $l (list 9) }}{{ slice "abc" 1 }}`, "[1 2 3][1 3]truefalse[2 3][3 2][[1 2 3] [2]][1][1 2 3 2 9]bc"},
		{`{{ $d := dict "a" 1 "b" (dict "c" 2) "e" }}{{ $d }}{{ get $d "a" }}{{ get $d "x" }}{{ hasKey $d "a" }}{{ keys $d }}{{ values $d }}{{ dig "b" "c" 0 $d }}{{ dig "b" "x" 7 $d }}`, "map[a:1 b:map[c:2] e:]1true[a b e][1 map[c:2] ]27"},
		{`{{ $d := dict "a" 1 }}{{ $_ := set $d "b" 2 }}{{ $d }}{{ $_ := unset $d "a" }}{{ $d }}{{ pluck "b" $d $d }}{{ pick $d "b" "x" }}{{ omit $d "b" }}`, "map[a:1 b:2]map[b:2][2 2]map[b:2]map[]"},
		{`{{ merge (dict "a" 1 "n" (dict "x" 1)) (dict "a" 2 "b" 3 "n" (dict "y" 2)) }}{{ mergeOverwrite (dict "a" 1) (dict "a" 2) }}{{ $a := dict "a" (list 1) }}{{ deepCopy $a }}`, "map[a:1 b:3 n:map[x:1 y:2]]map[a:2]map[a:[1]]"},
		{`{{ default "d" "" }}{{ default "d" "x" }}{{ "" | default "p" }}{{ empty 0 }}{{ coalesce 0 "" 3 }}{{ all 1 0 }}{{ any 1 0 }}{{ ternary "y" "n" true }}{{ false | ternary "y" "n" }}`, "dxptrue3falsetrueyn"},
		{`{{ typeOf 1 }} {{ typeIs "int" 1 }} {{ typeIsLike "int" 1 }} {{ kindOf "a" }} {{ kindIs "map" (dict) }} {{ deepEqual 1 1 }}`, "int true true string true true"},
		{`{{ (fromJson "{\"a\": [1]}").a }}{{ toJson (dict "a" "<") }}{{ toRawJson (dict "a" "<") }}{{ toPrettyJson (list 1) }}{{ mustFromJson "1" }}`, "[1]{\"a\":\"\\u003c\"}{\"a\":\"<\"}[\n  1\n]1"},
	}
	l := gotemplate.NewLanguage(sprig.Functions(map[string]string{"A": "a"}))
	all := ""
	for _, test := range tests {
		all += test.text
		if got, _, err := l.Render(test.text, nil); got != test.want || err != nil {
			t.Errorf("%s\n%q, %v\nwant\n%q", test.text, got, err, test.want)
		}
	}
	for name := range sprig.Functions(nil) {
		base := strings.TrimPrefix(strings.TrimPrefix(name, "must"), "os")
		_, _, err := l.Render("{{ "+name+" }}", nil)
		refused := err != nil && strings.Contains(err.Error(), "cannot be used here")
		if !refused && name != "fail" && !strings.Contains(strings.ToLower(all), strings.ToLower(base)) {
			t.Errorf("%s has no example", name)
		}
	}
}

func TestErrors(t *testing.T) {
	l := gotemplate.NewLanguage(sprig.Functions(nil))
	for text, want := range map[string]string{
		`{{ fail "x" }}`: "x", `{{ upper 1 }}`: "argument 1 must be of type string, not type int", `{{ upper }}`: "want 1, got 0", `{{ upper "a" "b" }}`: "want 1, got 2", `{{ nil | upper }}`: "nil is not a command",
		`{{ div 1 0 }}`: "division by zero", `{{ mod 1 "x" }}`: "division by zero", `{{ divf 1 0 }}`: "division by zero",
		`{{ substr 3 1 "abcdef" }}`: "no part from 3 to 1", `{{ repeat -1 "a" }}`: "repeated -1 times", `{{ first 1 }}`: "no list", `{{ slice (list 1) 2 }}`: "no part from 2",
		`{{ regexFind "(" "a" }}`: "missing closing )", `{{ semverCompare "nope" "1" }}`: `"nope"`, `{{ semverCompare "1" "x" }}`: `"x"`, `{{ mustFromJson "{" }}`: "unexpected end",
		`{{ set nil "a" 1 }}`: "no dict", `{{ dig "a" 1 }}`: "dig needs", `{{ chunk 0 (list 1) }}`: "parts of 0", `{{ urlParse "http://[" }}`: "missing ']'", `{{ semver "1" }}`: "use semverCompare",
		`{{ $d := dict }}{{ $d = set $d "a" $d }}`: "nested more than", `{{ $d := dict "a" (dict) }}{{ regexReplaceAll "" (repeat 99999 "a") (repeat 999 "b") }}`: "more than",
		`{{ $l := list 1 2 3 4 5 6 7 8 }}{{ range 40 }}{{ $l = concat $l $l }}{{ end }}`: "holds more than", "a\n{{ 1 }}\n{{ upper 1 }}": "line 3: ",
	} {
		if _, _, err := l.Render(text, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
