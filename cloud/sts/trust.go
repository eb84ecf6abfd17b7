package sts

import (
	"encoding/json"
	"slices"
	"strings"
)

// asking is who wants a role, as a trust policy has it.
type asking struct {
	action    string              // without its service
	account   string              // empty for who has only a token
	arn       string              //
	federated string              // the ARN of the token's provider
	keys      map[string][]string // of conditions; names in lower case
}

// trusts reports whether a trust policy lets somebody take its role on. Of the conditions it
// knows those of strings; one that it does not know is not met.
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

// statements are one statement or a list of them.
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
}

func (st statement) covers(who asking) bool {
	if !slices.ContainsFunc(st.Action, func(a string) bool {
		return a == "*" || strings.EqualFold(a, "sts:*") || strings.EqualFold(a, "sts:"+who.action)
	}) {
		return false
	}
	for operator, keys := range st.Condition {
		for key, values := range keys {
			if !meets(operator, who.keys[strings.ToLower(key)], values) {
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

// meets reports whether what a request has under a key meets a condition: with one of the wanted
// values, as IAM's operators of strings have it.
func meets(operator string, have, wanted []string) bool {
	operator, lenient := strings.CutSuffix(operator, "IfExists")
	if lenient && len(have) == 0 {
		return true
	}
	quantifier, rest, several := strings.Cut(operator, ":")
	if several {
		operator = rest
	}
	positive := strings.Replace(operator, "Not", "", 1)
	same := map[string]func(have, want string) bool{
		"StringEquals": func(have, want string) bool { return have == want }, "StringEqualsIgnoreCase": strings.EqualFold, "StringLike": like,
	}[positive]
	if same == nil {
		return false
	}
	one := func(have string) bool {
		return slices.ContainsFunc(wanted, func(want string) bool { return same(have, want) }) == (positive == operator)
	}
	switch {
	case several && quantifier == "ForAllValues":
		return !slices.ContainsFunc(have, func(h string) bool { return !one(h) })
	case several && quantifier != "ForAnyValue":
		return false
	case len(have) == 0:
		return positive != operator && !several
	}
	return slices.ContainsFunc(have, one)
}

// like reports whether a text is of a pattern, in which * is any text and ? any character.
func like(text, pattern string) bool {
	t, p := []rune(text), []rune(pattern)
	at, star, after := 0, -1, 0
	i := 0
	for i < len(t) {
		switch {
		case at < len(p) && (p[at] == '?' || p[at] == t[i]) && p[at] != '*':
			i, at = i+1, at+1
		case at < len(p) && p[at] == '*':
			star, after = at, i
			at++
		case star >= 0: // the last * takes one more
			after++
			i, at = after, star+1
		default:
			return false
		}
	}
	for at < len(p) && p[at] == '*' {
		at++
	}
	return at == len(p)
}

// principal is who a statement is about: "*", or lists by kind.
type principal struct{ AWS, Federated texts }

func (p *principal) UnmarshalJSON(data []byte) error {
	var all string
	if json.Unmarshal(data, &all) == nil {
		p.AWS, p.Federated = texts{all}, texts{all}
		return nil
	}
	type kinds principal // without this method
	return json.Unmarshal(data, (*kinds)(p))
}

// texts are one text or a list of them.
type texts []string

func (t *texts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(t))
}
