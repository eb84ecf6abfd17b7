package sts

import (
	"encoding/json"
	"slices"
	"strings"

	"bake/cloud/wire"
)

// asking is the caller that asks for a role, as trust policies see it.
type asking struct {
	action    string // without the service's prefix
	account   string // empty if the caller has only a token
	arn       string
	federated string              // the ARN of the token's provider
	keys      map[string][]string // condition keys, including those without a value; names in lower case
}

// trusts reports whether a trust policy allows the caller to assume its role. Of
// conditions, it evaluates string operators on the caller's keys. It decides other
// conditions, and NotAction, against the caller: they count as not met in an Allow
// statement and as met in a Deny statement.
func trusts(policy string, who asking) bool {
	var document struct{ Statement statements }
	if err := json.Unmarshal([]byte(policy), &document); err != nil {
		return false
	}
	ok := false
	for _, st := range document.Statement {
		if !st.covers(who) {
			continue
		}
		if st.Effect == "Deny" {
			return false
		}
		ok = ok || st.Effect == "Allow"
	}
	return ok
}

// statements is one statement or a list of them.
type statements []statement

func (s *statements) UnmarshalJSON(data []byte) error {
	var one statement
	if json.Unmarshal(data, &one) == nil {
		*s = statements{one}
		return nil
	}
	return json.Unmarshal(data, (*[]statement)(s))
}

type statement struct {
	Effect    string
	Principal principal
	Action    texts
	Condition map[string]map[string]texts

	NotAction json.RawMessage
}

func (st statement) covers(who asking) bool {
	unknown := st.Effect == "Deny"
	if st.NotAction != nil {
		return unknown
	}
	if !slices.ContainsFunc(st.Action, func(a string) bool {
		return a == "*" || strings.EqualFold(a, "sts:*") || strings.EqualFold(a, "sts:"+who.action)
	}) {
		return false
	}
	for operator, keys := range st.Condition {
		for key, values := range keys {
			have, known := who.keys[strings.ToLower(key)]
			test, ok := readOperator(operator)
			met := unknown
			if known && ok {
				met = test.meets(have, values)
			}
			if !met {
				return false
			}
		}
	}
	if who.federated != "" {
		return slices.Contains(st.Principal.Federated, who.federated) || slices.Contains(st.Principal.Federated, "*")
	}
	return slices.ContainsFunc(st.Principal.AWS, func(p string) bool {
		return p == "*" || p == who.account || p == "arn:aws:iam::"+who.account+":root" || p == who.arn
	})
}

// operator is one of IAM's string condition operators.
type operator struct {
	same       func(have, want string) bool
	negated    bool
	lenient    bool   // IfExists: true if the key has no value
	quantifier string // ForAllValues, ForAnyValue or none
}

// readOperator parses the name of an operator, and reports whether it is a string
// operator.
func readOperator(name string) (o operator, ok bool) {
	if quantifier, rest, several := strings.Cut(name, ":"); several {
		if quantifier != "ForAllValues" && quantifier != "ForAnyValue" {
			return o, false
		}
		o.quantifier, name = quantifier, rest
	}
	name, o.lenient = strings.CutSuffix(name, "IfExists")
	switch name {
	case "StringEquals", "StringNotEquals":
		o.same = func(have, want string) bool { return have == want }
	case "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase":
		o.same = strings.EqualFold
	case "StringLike", "StringNotLike":
		o.same = func(have, want string) bool { return wire.Match(want, have, wire.NoEscape) }
	default:
		return o, false
	}
	o.negated = strings.HasPrefix(name, "StringNot")
	return o, true
}

// meets reports whether the condition is met: have are the request's values of the key,
// wanted the policy's.
func (o operator) meets(have, wanted []string) bool {
	one := func(have string) bool {
		return slices.ContainsFunc(wanted, func(want string) bool { return o.same(have, want) }) != o.negated
	}
	switch {
	case o.quantifier == "ForAllValues":
		return !slices.ContainsFunc(have, func(h string) bool { return !one(h) })
	case len(have) == 0:
		return o.lenient || o.negated && o.quantifier == ""
	}
	return slices.ContainsFunc(have, one)
}

// principal is the principal of a statement: "*", or lists by kind.
type principal struct{ AWS, Federated texts }

func (p *principal) UnmarshalJSON(data []byte) error {
	var all string
	if json.Unmarshal(data, &all) == nil {
		p.AWS, p.Federated = texts{all}, texts{all}
		return nil
	}
	type kinds principal // without this method, to avoid recursion
	return json.Unmarshal(data, (*kinds)(p))
}

// texts is one text or a list of them.
type texts []string

func (t *texts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(t))
}
