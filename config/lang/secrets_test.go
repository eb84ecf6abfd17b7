package lang_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"bake/config/lang"
)

func TestSecretsManagerFunctions(t *testing.T) {
	secrets := map[string]string{
		"plain": "hush", "one": `{"password": "p1"}`, "two": `{"password": "p2", "port": 5432.0, "big": 9007199254740993, "flag": true, "ratio": 2.7}`,
		"list": `["a"]`, "number": "17", "broken": `{"a": 1} x`, "none": `{}`, "empty": `{"a": ""}`,
	}
	for _, test := range []struct{ expr, want string }{
		{`aws_secretsmanager("plain", null)`, `"hush"`},
		{`aws_secretsmanager("plain", "key")`, `"hush"`},
		{`aws_secretsmanager("one", null)`, `"p1"`},
		{`aws_secretsmanager("one", "")`, `"p1"`},
		{`aws_secretsmanager("two", "password")`, `"p2"`},
		{`aws_secretsmanager("two", "port")`, `"5432"`},
		{`aws_secretsmanager("two", "big")`, `"9007199254740993"`},
		{`aws_secretsmanager("two", "ratio")`, `"3"`},
		{`aws_secretsmanager("list", null)`, `"[\"a\"]"`},
		{`aws_secretsmanager("number", null)`, `"17"`},
		{`aws_secretsmanager("broken", null)`, `"{\"a\": 1} x"`},
		{`aws_secretsmanager("empty", "a")`, `""`},
		{`aws_secretsmanager_raw("one")`, `"{\"password\": \"p1\"}"`},
		{`jsondecode(aws_secretsmanager_raw("two")).password`, `"p2"`},
		{`aws_secretsmanager("two", null)`, `error: the secret two has 5 values: specify the key of one`},
		{`aws_secretsmanager("none", null)`, `error: the secret none has 0 values`},
		{`aws_secretsmanager("two", "pasword")`, `error: the secret two has no "pasword". Did you mean "password"?`},
		{`aws_secretsmanager("two", "flag")`, `error: neither a string nor a number`},
		{`aws_secretsmanager("absent", null)`, `error: there is no secret absent`},
		{`aws_secretsmanager(null, null)`, `error: must not be null`},
	} {
		var told []string
		w := lang.World{
			SecretsManager: func(name string) (string, error) {
				if text, ok := secrets[name]; ok {
					return text, nil
				}
				return "", errors.New("there is no secret " + name)
			},
			Secret: func(s string) { told = append(told, s) },
		}
		got := evaluate(t, w, test.expr, nil)
		if want, fails := strings.CutPrefix(test.want, "error: "); fails && !strings.Contains(got, want) || !fails && got != test.want {
			t.Errorf("%s = %s, want %s", test.expr, got, test.want)
		}
		if name := strings.Split(test.expr, `"`); len(name) > 1 && secrets[name[1]] != "" && !slices.Contains(told, secrets[name[1]]) {
			t.Errorf("%s: only %q are secret", test.expr, told)
		}
		if test.want == `"p2"` && strings.HasPrefix(test.expr, "aws") && !slices.Contains(told, "p2") {
			t.Errorf("%s: only %q are secret", test.expr, told)
		}
	}
}

// TestUnknownSecret: where secrets cannot be looked up, they are unknown.
func TestUnknownSecret(t *testing.T) {
	for _, expr := range []string{`aws_secretsmanager("x", null)`, `"a ${aws_secretsmanager_raw("x")}"`} {
		if got := evaluate(t, lang.World{}, expr, nil); got != "unknown" {
			t.Errorf("%s = %s", expr, got)
		}
	}
}
