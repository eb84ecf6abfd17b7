package ssm

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/ssm"
	"bake/cloud/wire"
)

// page returns the next page of the caller's and the public parameters that match all
// filters, sorted by name. The page has size rows, or usual if size is 0.
func (s *state) page(c wire.Caller, public map[string]*parameter, filters []ssm.ParameterStringFilter, token *string, size, usual int32) ([]*parameter, *string, error) {
	var rows []*parameter
	for _, p := range s.parameters.Rows {
		if p.Account == c.Account && p.Region == c.Region {
			rows = append(rows, p)
		}
	}
	for _, p := range public {
		rows = append(rows, p)
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].Name < rows[j].Name })
	for _, f := range filters {
		matches, err := filter(f)
		if err != nil {
			return nil, nil, err
		}
		rows = slices.DeleteFunc(rows, func(p *parameter) bool { return !matches(p) })
	}
	rows, next, ok := wire.Page("parameters", rows, func(p *parameter) string { return p.Name }, strings.Compare, int(cmp.Or(size, usual)), token)
	if !ok {
		return nil, nil, wire.Errorf("InvalidNextToken", "The specified token is not valid.")
	}
	return rows, next, nil
}

// filter returns a function that reports whether a parameter matches f: it must match one
// of f's values.
func filter(f ssm.ParameterStringFilter) (func(*parameter) bool, error) {
	values := map[string]func(*parameter) string{
		"Name":     func(p *parameter) string { return strings.TrimPrefix(p.Name, "/") },
		"Type":     func(p *parameter) string { return string(p.Type) },
		"KeyId":    func(p *parameter) string { return p.latest().KeyID },
		"Tier":     func(p *parameter) string { return string(p.Tier) },
		"DataType": func(p *parameter) string { return p.latest().DataType },
	}
	key, option := *f.Key, aws.ToString(f.Option)
	if tag, ok := strings.CutPrefix(key, "tag:"); ok {
		return func(p *parameter) bool {
			return slices.ContainsFunc(p.Tags, func(t ssm.Tag) bool {
				return *t.Key == tag && (len(f.Values) == 0 || slices.Contains(f.Values, *t.Value))
			})
		}, nil
	}
	if key == "Path" {
		if option != "" && option != "OneLevel" && option != "Recursive" {
			return nil, invalidOption(option, "OneLevel, Recursive")
		}
		return func(p *parameter) bool {
			return slices.ContainsFunc(f.Values, func(path string) bool {
				rest, below := strings.CutPrefix(p.Name, strings.TrimSuffix(path, "/")+"/")
				return below && (option == "Recursive" || !strings.Contains(rest, "/")) || path == "/" && !strings.Contains(p.Name, "/")
			})
		}, nil
	}
	value := values[key]
	if value == nil {
		return nil, wire.Errorf("InvalidFilterKey", "The following filter key is not valid: %s. Valid filter keys include: [DataType, KeyId, Name, Path, Tier, Type, tag:].", key)
	}
	compare := map[string]func(value, want string) bool{
		"": func(v, want string) bool { return v == want }, "Equals": func(v, want string) bool { return v == want },
		"BeginsWith": strings.HasPrefix, "Contains": strings.Contains,
	}[option]
	if compare == nil || option == "Contains" && key != "Name" {
		return nil, invalidOption(option, "BeginsWith, Equals")
	}
	return func(p *parameter) bool {
		return slices.ContainsFunc(f.Values, func(want string) bool {
			if key == "Name" {
				want = strings.TrimPrefix(want, "/")
			}
			return compare(value(p), want)
		})
	}, nil
}

func invalidOption(option, valid string) error {
	return wire.Errorf("InvalidFilterOption", "The following filter option is not valid: %s. Valid options include: [%s].", option, valid)
}
