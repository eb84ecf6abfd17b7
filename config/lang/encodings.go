package lang

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"unicode/utf8"

	ctyyaml "github.com/zclconf/go-cty-yaml"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"golang.org/x/text/encoding/ianaindex"
)

var (
	base64Encode = text1("str", func(s string) (string, error) { return base64.StdEncoding.EncodeToString([]byte(s)), nil })
	urlEncode    = text1("str", func(s string) (string, error) { return url.QueryEscape(s), nil })

	base64Decode = text1("str", func(s string) (string, error) {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return "", errors.New("is not base64")
		}
		if !utf8.Valid(b) {
			return "", errors.New("contains bytes that are not UTF-8 text")
		}
		return string(b), nil
	})

	base64Gzip = text1("str", func(s string) (string, error) {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(s)); err != nil {
			return "", err
		}
		if err := z.Flush(); err != nil { // as templates have always got it: user data is compared by its bytes
			return "", err
		}
		if err := z.Close(); err != nil {
			return "", err
		}
		return base64.StdEncoding.EncodeToString(b.Bytes()), nil
	})

	// yamlDecode reads YAML. An empty document is null.
	yamlDecode = function.New(&function.Spec{
		Params: ctyyaml.YAMLDecodeFunc.Params(),
		Type:   ctyyaml.YAMLDecodeFunc.ReturnTypeForValues,
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			v, err := ctyyaml.YAMLDecodeFunc.Call(args)
			if err == nil && !v.IsKnown() {
				v = cty.NullVal(cty.DynamicPseudoType)
			}
			return v, err
		},
	})

	textEncodeBase64 = text2("str", "encoding", func(s, name string) (string, error) {
		enc, err := ianaindex.IANA.Encoding(name)
		if err != nil || enc == nil {
			return "", fmt.Errorf("%q is not the IANA name of a character encoding", name)
		}
		b, err := enc.NewEncoder().Bytes([]byte(s))
		if err != nil {
			return "", fmt.Errorf("the text has characters that %s cannot represent", name)
		}
		return base64.StdEncoding.EncodeToString(b), nil
	})

	textDecodeBase64 = text2("base64", "encoding", func(s, name string) (string, error) {
		enc, err := ianaindex.IANA.Encoding(name)
		if err != nil || enc == nil {
			return "", fmt.Errorf("%q is not the IANA name of a character encoding", name)
		}
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return "", errors.New("the first argument is not base64")
		}
		text, err := enc.NewDecoder().Bytes(b)
		if err != nil || bytes.ContainsRune(text, utf8.RuneError) {
			return "", fmt.Errorf("the bytes are not %s", name)
		}
		return string(text), nil
	})
)
