package ssm

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/ssm"
	"bake/cloud/durable"
	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

const maxLabels = 10 // of a version

var labelPattern = lazyregexp.New(`^[A-Za-z_.-][A-Za-z0-9_.-]{0,99}$`)

func validLabel(label string) bool {
	lower := strings.ToLower(label)
	return labelPattern.Get().MatchString(label) && !strings.HasPrefix(lower, "aws") && !strings.HasPrefix(lower, "ssm")
}

// relabel calls f with a copy of a parameter's versions and the one with that number, or
// the latest if number is 0, and stores the copy. It returns the version's number.
func (s *state) relabel(c wire.Caller, name string, number int64, f func(versions []version, v *version) error) (int64, error) {
	id := durable.NameID(c.Account, c.Region, name)
	old, ok := s.parameters.Get(id)
	if !ok {
		return 0, errNotFound()
	}
	next := *old
	next.Versions = slices.Clone(old.Versions)
	v := next.latest()
	if number != 0 {
		i := slices.IndexFunc(next.Versions, func(v version) bool { return v.Number == number })
		if i < 0 {
			return 0, wire.Errorf("ParameterVersionNotFound", "Systems Manager could not find version %d of %s. Verify the version and try again.", number, name)
		}
		v = &next.Versions[i]
	}
	if err := f(next.Versions, v); err != nil {
		return 0, err
	}
	return v.Number, s.parameters.Put(id, &next)
}

// LabelParameterVersion attaches labels to a version and removes them from the other
// versions.
func (s *state) LabelParameterVersion(ctx context.Context, in *ssm.LabelParameterVersionInput) (*ssm.LabelParameterVersionOutput, error) {
	var good []string
	invalid := []string{}
	for _, label := range in.Labels {
		switch {
		case !validLabel(label):
			invalid = append(invalid, label)
		case !slices.Contains(good, label):
			good = append(good, label)
		}
	}
	number, err := s.relabel(wire.CallerFrom(ctx), *in.Name, aws.ToInt64(in.ParameterVersion), func(versions []version, v *version) error {
		for i := range versions {
			versions[i].Labels = without(versions[i].Labels, good)
		}
		v.Labels = append(v.Labels, good...)
		if len(v.Labels) > maxLabels {
			return wire.Errorf("ParameterVersionLabelLimitExceeded", "A parameter version can have maximum %d labels. Move one or more labels to another version and try again.", maxLabels)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ssm.LabelParameterVersionOutput{InvalidLabels: invalid, ParameterVersion: number}, nil
}

// UnlabelParameterVersion removes labels from a version, and returns those that it does
// not have.
func (s *state) UnlabelParameterVersion(ctx context.Context, in *ssm.UnlabelParameterVersionInput) (*ssm.UnlabelParameterVersionOutput, error) {
	out := &ssm.UnlabelParameterVersionOutput{InvalidLabels: []string{}, RemovedLabels: []string{}}
	_, err := s.relabel(wire.CallerFrom(ctx), *in.Name, aws.ToInt64(in.ParameterVersion), func(_ []version, v *version) error {
		for _, label := range in.Labels {
			if slices.Contains(v.Labels, label) {
				out.RemovedLabels = append(out.RemovedLabels, label)
			} else {
				out.InvalidLabels = append(out.InvalidLabels, label)
			}
		}
		v.Labels = without(v.Labels, out.RemovedLabels)
		return nil
	})
	return out, err
}

// without returns a new list of the labels that are not in some.
func without(labels, some []string) []string {
	return slices.DeleteFunc(slices.Clone(labels), func(l string) bool { return slices.Contains(some, l) })
}

// GetParameterHistory returns the versions of a parameter, the oldest first.
func (s *state) GetParameterHistory(ctx context.Context, in *ssm.GetParameterHistoryInput) (*ssm.GetParameterHistoryOutput, error) {
	c := wire.CallerFrom(ctx)
	p, ok := s.parameters.Get(durable.NameID(c.Account, c.Region, *in.Name))
	if !ok {
		return nil, errNotFound()
	}
	size := 50
	if in.MaxResults != nil {
		size = int(*in.MaxResults)
	}
	versions, next, ok := wire.Page("history", p.Versions, func(v version) string { return fmt.Sprintf("%019d", v.Number) }, strings.Compare, size, in.NextToken)
	if !ok {
		return nil, wire.Errorf("InvalidNextToken", "The specified token is not valid.")
	}
	out := &ssm.GetParameterHistoryOutput{Parameters: []ssm.ParameterHistory{}, NextToken: next}
	for _, v := range versions {
		shown, err := s.view(p, &v, "", in.WithDecryption)
		if err != nil {
			return nil, err
		}
		h := ssm.ParameterHistory{Name: &p.Name, Type: p.Type, Tier: p.Tier, Version: v.Number, Value: shown.Value, DataType: &v.DataType,
			LastModifiedDate: &v.Modified, LastModifiedUser: aws.String("arn:aws:iam::" + p.Account + ":root"),
			Labels: append([]string{}, v.Labels...), Policies: []ssm.ParameterInlinePolicy{}}
		v.optional(&h.Description, &h.KeyId, &h.AllowedPattern)
		out.Parameters = append(out.Parameters, h)
	}
	return out, nil
}
