package lang

import (
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"

	"github.com/google/uuid"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/gocty"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/ssh"
)

var (
	md5Hex    = text1("str", func(s string) (string, error) { h := md5.Sum([]byte(s)); return hex.EncodeToString(h[:]), nil })
	sha1Hex   = text1("str", func(s string) (string, error) { h := sha1.Sum([]byte(s)); return hex.EncodeToString(h[:]), nil })
	sha256Hex = text1("str", func(s string) (string, error) { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]), nil })
	sha512Hex = text1("str", func(s string) (string, error) { h := sha512.Sum512([]byte(s)); return hex.EncodeToString(h[:]), nil })

	// rsaDecrypt opens what RSA PKCS #1 v1.5 has sealed. The key is PEM.
	rsaDecrypt = text2("ciphertext", "privatekey", func(sealed, key string) (string, error) {
		b, err := base64.StdEncoding.DecodeString(sealed)
		if err != nil {
			return "", errors.New("the ciphertext is not base64")
		}
		raw, err := ssh.ParseRawPrivateKey([]byte(key))
		if err != nil {
			return "", errors.New("the key is not an unencrypted private key in PEM")
		}
		private, ok := raw.(*rsa.PrivateKey)
		if !ok {
			return "", errors.New("the key is not an RSA key")
		}
		text, err := rsa.DecryptPKCS1v15(nil, private, b) //nolint:staticcheck // what the function is defined as
		if err != nil {
			return "", errors.New("the key cannot decrypt the ciphertext")
		}
		return string(text), nil
	})

	uuidV4 = function.New(&function.Spec{
		Type: function.StaticReturnType(cty.String),
		Impl: func([]cty.Value, cty.Type) (cty.Value, error) {
			id, err := uuid.NewRandom()
			return cty.StringVal(id.String()), err
		},
	})

	// uuidV5 takes a well-known namespace by name, or any as a UUID.
	uuidV5 = text2("namespace", "name", func(namespace, name string) (string, error) {
		known := map[string]uuid.UUID{
			"dns": uuid.NameSpaceDNS, "url": uuid.NameSpaceURL, "oid": uuid.NameSpaceOID, "x500": uuid.NameSpaceX500,
		}
		space, ok := known[namespace]
		if !ok {
			var err error
			if space, err = uuid.Parse(namespace); err != nil {
				return "", errors.New("the namespace must be dns, url, oid, x500 or a UUID")
			}
		}
		return uuid.NewSHA1(space, []byte(name)).String(), nil
	})

	bcryptHash = function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "str", Type: cty.String}},
		VarParam: &function.Parameter{Name: "cost", Type: cty.Number},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			cost := bcrypt.DefaultCost
			if len(args) > 2 {
				return cty.NilVal, errors.New("bcrypt takes a string and at most one cost")
			}
			if len(args) == 2 {
				if err := gocty.FromCtyValue(args[1], &cost); err != nil {
					return cty.NilVal, function.NewArgError(1, err)
				}
				if cost > maxBcryptCost {
					return cty.NilVal, function.NewArgErrorf(1, "must be at most %d", maxBcryptCost)
				}
			}
			h, err := bcrypt.GenerateFromPassword([]byte(args[0].AsString()), cost)
			if err != nil {
				return cty.NilVal, err
			}
			return cty.StringVal(string(h)), nil
		},
	})
)
