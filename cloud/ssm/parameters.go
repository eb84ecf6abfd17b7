package ssm

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/ssm"
	"bake/cloud/durable"
	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

// parameter is a parameter with its versions, oldest first. It has at least one.
type parameter struct {
	Account, Region string // Account is empty for public parameters
	Name            string
	Type            ssm.ParameterType
	Tier            ssm.ParameterTier
	Tags            []ssm.Tag
	Versions        []version
}

// version is one value of a parameter.
type version struct {
	Number         int64
	Value          string // encrypted if the parameter is a SecureString
	Modified       time.Time
	Description    string
	KeyID          string
	DataType       string
	AllowedPattern string
	Labels         []string // each label is on only one version of a parameter
}

// Data types of parameters.
const (
	textType  = "text"
	imageType = "aws:ec2:image" // see validation.go
)

// Limits of the Parameter Store.
const (
	maxVersions  = 100
	maxLevels    = 15
	maxARN       = 1011 // characters
	maxStandard  = 4096 // bytes of a value
	maxAdvanced  = 8192
	defaultKeyID = "alias/aws/ssm"
)

func (p *parameter) latest() *version { return &p.Versions[len(p.Versions)-1] }

func arn(c wire.Caller, name string) string {
	return "arn:aws:ssm:" + c.Region + ":" + c.Account + ":parameter/" + strings.TrimPrefix(name, "/")
}

func (p *parameter) arn() string {
	return arn(wire.Caller{Account: p.Account, Region: p.Region}, p.Name)
}

// context returns the encryption context of p's values.
func (p *parameter) context() string { return p.arn() }

func validation(format string, args ...any) error {
	return wire.Errorf("ValidationException", format, args...)
}

// errNotFound returns the error for a missing parameter. It has no message on AWS either.
func errNotFound() error { return &wire.Error{Code: "ParameterNotFound"} }

var namePattern = lazyregexp.New(`^[a-zA-Z0-9_.\-/]+$`)

func checkName(c wire.Caller, name string) error {
	top := strings.ToLower(strings.TrimPrefix(name, "/"))
	switch {
	case strings.HasPrefix(name, "/aws/"):
		return wire.Errorf("AccessDeniedException", "No access to reserved parameter name: %s.", name)
	case !namePattern.Get().MatchString(name), strings.HasPrefix(top, "aws"), strings.HasPrefix(top, "ssm"), strings.HasSuffix(name, "/"), strings.Contains(name, "//"):
		return validation(`Parameter name: can't be prefixed with "aws" or "ssm" (case-insensitive). If formed as a path, it can consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following 3 symbols .-_`)
	case strings.Contains(name, "/") && name[0] != '/':
		return validation("Parameter name must be a fully qualified name.")
	case strings.Count(name, "/") > maxLevels:
		return wire.Errorf("HierarchyLevelLimitExceededException", "A hierarchy can have a maximum of %d levels.", maxLevels)
	case len(arn(c, name)) > maxARN:
		return validation("The ARN of the parameter would have more than %d characters.", maxARN)
	}
	return nil
}

// PutParameter creates a parameter or, with Overwrite, its next version.
func (s *state) PutParameter(ctx context.Context, in *ssm.PutParameterInput) (*ssm.PutParameterOutput, error) {
	c := wire.CallerFrom(ctx)
	name := *in.Name
	if err := checkName(c, name); err != nil {
		return nil, err
	}
	if in.Policies != nil {
		return nil, wire.Errorf("InvalidPolicyTypeException", "The embedded cloud has no parameter policies.")
	}
	id := durable.NameID(c.Account, c.Region, name)
	next := parameter{Account: c.Account, Region: c.Region, Name: name, Type: in.Type, Tags: in.Tags}
	if old := s.written(id); old != nil {
		if err := overwrite(old, in); err != nil {
			return nil, err
		}
		next.Type, next.Tier, next.Tags, next.Versions = old.Type, old.Tier, old.Tags, slices.Clone(old.Versions)
	} else if in.Type == "" {
		return nil, validation("A parameter type is required when you create a parameter.")
	}
	if err := next.setTier(in); err != nil {
		return nil, err
	}
	number := s.lastNumber(id) + 1
	v := version{Number: number, Value: *in.Value, Modified: s.now().UTC(), Description: aws.ToString(in.Description),
		DataType: cmp.Or(aws.ToString(in.DataType), textType), AllowedPattern: aws.ToString(in.AllowedPattern)}
	if err := v.check(next.Type, in.KeyId); err != nil {
		return nil, err
	}
	if next.Type == ssm.ParameterTypeSecureString {
		v.KeyID = defaultKeyID
		if in.KeyId != nil {
			v.KeyID = *in.KeyId
		}
		v.Value = s.key.Seal([]byte(v.Value), next.context())
	}
	if err := s.keep(id, &next, v); err != nil {
		return nil, err
	}
	return &ssm.PutParameterOutput{Version: number, Tier: next.Tier}, nil
}

// keep stores v as the next version of p. A version that names an image is validated
// first.
func (s *state) keep(id string, p *parameter, v version) error {
	if len(p.Versions) >= maxVersions && len(p.Versions[0].Labels) > 0 {
		return wire.Errorf("ParameterMaxVersionLimitExceeded", "You attempted to create a new version of %s by calling the PutParameter API with the overwrite flag. Version %d, the oldest version, can't be deleted because it has a label associated with it. Move the label to another version of the parameter, and try again.", p.Name, p.Versions[0].Number)
	}
	if v.DataType == imageType {
		p.Versions = []version{v}
		return s.unvalidated.Put(unvalidatedKey(id, v.Number), &unvalidated{ID: id, Parameter: *p})
	}
	return s.add(id, p, v)
}

// add stores v as the next version of p.
func (s *state) add(id string, p *parameter, v version) error {
	p.Versions = append(p.Versions, v)
	p.Versions = p.Versions[max(0, len(p.Versions)-maxVersions):]
	return s.parameters.Put(id, p)
}

// overwrite reports why in cannot create a new version of old.
func overwrite(old *parameter, in *ssm.PutParameterInput) error {
	switch {
	case !aws.ToBool(in.Overwrite):
		return wire.Errorf("ParameterAlreadyExists", "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.")
	case len(in.Tags) > 0:
		return validation("Invalid request: tags and overwrite can't be used together. To create a parameter with tags, please remove overwrite flag.")
	case cmp.Or(aws.ToString(in.DataType), textType) != old.latest().DataType:
		return validation("Parameter Store doesn't support changing a parameter's data type from %s to %s. Create a new parameter.", old.latest().DataType, cmp.Or(aws.ToString(in.DataType), textType))
	case in.Type != "" && in.Type != old.Type:
		return wire.Errorf("HierarchyTypeMismatchException", "Parameter Store doesn't support changing a parameter's type from %s to %s. Create a new parameter.", old.Type, in.Type)
	case old.Tier == ssm.ParameterTierAdvanced && in.Tier == ssm.ParameterTierStandard:
		return validation("This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the advanced-parameter tier to the standard-parameter tier. If necessary, you can delete the advanced parameter and recreate it as a standard parameter.")
	}
	return nil
}

// setTier sets the tier that in asks for. Intelligent tiering chooses the advanced tier
// for values that the standard one cannot hold. An advanced parameter stays advanced.
func (p *parameter) setTier(in *ssm.PutParameterInput) error {
	size := len(*in.Value)
	switch {
	case size == 0:
		return validation("1 validation error detected: Value '' at 'value' failed to satisfy constraint: Member must have length greater than or equal to 1.")
	case size > maxAdvanced:
		return validation("Advanced tier parameters support a maximum parameter value of %d characters.", maxAdvanced)
	case p.Tier == ssm.ParameterTierAdvanced, in.Tier == ssm.ParameterTierAdvanced, in.Tier == ssm.ParameterTierIntelligentTiering && size > maxStandard:
		p.Tier = ssm.ParameterTierAdvanced
	case size > maxStandard:
		return validation("Standard tier parameters support a maximum parameter value of %d characters. To create a larger parameter value, upgrade the parameter to use the advanced-parameter tier.", maxStandard)
	default:
		p.Tier = ssm.ParameterTierStandard
	}
	return nil
}

var imageID = lazyregexp.New(`^ami-([0-9a-f]{8}|[0-9a-f]{17})$`)

// check reports an invalid value for a parameter of that type.
func (v *version) check(kind ssm.ParameterType, key *string) error {
	switch v.DataType {
	case textType:
	case imageType:
		if !imageID.Get().MatchString(v.Value) {
			return validation("The parameter value %s is not the id of an image, as its data type aws:ec2:image requires.", v.Value)
		}
	default:
		return validation("The following data type is not supported: %s (Data type names are all lowercase.)", v.DataType)
	}
	if key != nil && kind != ssm.ParameterTypeSecureString {
		return validation("KeyId is required for SecureString type parameter only.")
	}
	if !utf8.ValidString(v.Value) {
		return validation("The value is not text.")
	}
	if v.AllowedPattern == "" {
		return nil
	}
	pattern, err := regexp.Compile(`^(?:` + v.AllowedPattern + `)$`)
	if err != nil {
		return wire.Errorf("InvalidAllowedPatternException", "The pattern %s is not a regular expression: %v", v.AllowedPattern, err)
	}
	if !pattern.MatchString(v.Value) {
		return wire.Errorf("ParameterPatternMismatchException", "Parameter value, cannot be validated against allowedPattern: %s", v.AllowedPattern)
	}
	return nil
}

// find returns the parameter that name refers to and the version that its selector, as in
// name:3 or name:label, selects. Without a selector, it is the latest version.
func (s *state) find(c wire.Caller, public map[string]*parameter, name string) (p *parameter, v *version, selector string, err error) {
	if rest, ok := strings.CutPrefix(name, "arn:aws:ssm:"+c.Region+":"+c.Account+":parameter/"); ok {
		name = rest
		if base, _, _ := strings.Cut(rest, ":"); strings.Contains(base, "/") || s.row(c, public, base) == nil {
			name = "/" + rest
		}
	}
	name, number, selected := strings.Cut(name, ":")
	p = s.row(c, public, name)
	if p == nil {
		return nil, nil, "", errNotFound()
	}
	if !selected {
		return p, p.latest(), "", nil
	}
	n, err := strconv.ParseInt(number, 10, 64)
	for i := range p.Versions {
		if v := &p.Versions[i]; err == nil && v.Number == n || err != nil && slices.Contains(v.Labels, number) {
			return p, v, ":" + number, nil
		}
	}
	what := "version"
	if err != nil {
		what = "version label"
	}
	return nil, nil, "", wire.Errorf("ParameterVersionNotFound", "Systems Manager could not find %s %s of %s. Verify it and try again.", what, number, name)
}

// row returns the parameter with that name, or nil.
func (s *state) row(c wire.Caller, public map[string]*parameter, name string) *parameter {
	if p, ok := public[name]; ok {
		return p
	}
	p, _ := s.parameters.Get(durable.NameID(c.Account, c.Region, name))
	return p
}

// view returns a version as clients see it.
func (s *state) view(p *parameter, v *version, selector string, decrypt *bool) (ssm.Parameter, error) {
	value := v.Value
	if p.Type == ssm.ParameterTypeSecureString && aws.ToBool(decrypt) {
		plain, err := s.key.Unseal(value, p.context())
		if err != nil {
			return ssm.Parameter{}, err
		}
		value = string(plain)
	}
	out := ssm.Parameter{ARN: aws.String(p.arn()), Name: &p.Name, Type: p.Type, Value: &value, Version: v.Number,
		DataType: &v.DataType, LastModifiedDate: &v.Modified}
	if selector != "" {
		out.Selector = &selector
	}
	return out, nil
}

// GetParameter returns one value.
func (s *Service) GetParameter(ctx context.Context, in *ssm.GetParameterInput) (*ssm.GetParameterOutput, error) {
	if err := s.validate(ctx); err != nil {
		return nil, err
	}
	public, err := s.public(ctx, *in.Name)
	if err != nil {
		return nil, err
	}
	return durable.Do(s.guarded, func(st *state) (*ssm.GetParameterOutput, error) {
		p, v, selector, err := st.find(wire.CallerFrom(ctx), public, *in.Name)
		if err != nil {
			return nil, unknownPublic(err, *in.Name, public)
		}
		out, err := st.view(p, v, selector, in.WithDecryption)
		return &ssm.GetParameterOutput{Parameter: &out}, err
	})
}

// GetParameters returns several values, and lists the names that do not exist.
func (s *Service) GetParameters(ctx context.Context, in *ssm.GetParametersInput) (*ssm.GetParametersOutput, error) {
	out := &ssm.GetParametersOutput{Parameters: []ssm.Parameter{}, InvalidParameters: []string{}}
	for _, name := range in.Names {
		one, err := s.GetParameter(ctx, &ssm.GetParameterInput{Name: &name, WithDecryption: in.WithDecryption})
		e, _ := errors.AsType[*wire.Error](err)
		switch {
		case e != nil && (e.Code == "ParameterNotFound" || e.Code == "ParameterVersionNotFound"):
			out.InvalidParameters = append(out.InvalidParameters, name)
		case err != nil:
			return nil, err
		default:
			out.Parameters = append(out.Parameters, *one.Parameter)
		}
	}
	return out, nil
}

// GetParametersByPath returns the values below a path, sorted by name.
func (s *Service) GetParametersByPath(ctx context.Context, in *ssm.GetParametersByPathInput) (*ssm.GetParametersByPathOutput, error) {
	if err := s.validate(ctx); err != nil {
		return nil, err
	}
	path := *in.Path
	if path[0] != '/' || !namePattern.Get().MatchString(path) {
		return nil, validation("The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward slash \"/\". It can't be prefixed with \"aws\" or \"ssm\" (case-insensitive).")
	}
	public, err := s.public(ctx, path)
	if err != nil {
		return nil, err
	}
	option := "OneLevel"
	if aws.ToBool(in.Recursive) {
		option = "Recursive"
	}
	filters := append(slices.Clone(in.ParameterFilters), ssm.ParameterStringFilter{Key: aws.String("Path"), Option: &option, Values: []string{path}})
	for _, f := range in.ParameterFilters {
		if k := *f.Key; k != "Type" && k != "KeyId" && k != "DataType" {
			return nil, wire.Errorf("InvalidFilterKey", "The following filter key is not valid: %s. Valid filter keys include: [Type, KeyId, DataType].", k)
		}
	}
	return durable.Do(s.guarded, func(st *state) (*ssm.GetParametersByPathOutput, error) {
		rows, next, err := st.page(wire.CallerFrom(ctx), public, filters, in.NextToken, aws.ToInt32(in.MaxResults), 10)
		if err != nil {
			return nil, err
		}
		out := &ssm.GetParametersByPathOutput{Parameters: []ssm.Parameter{}, NextToken: next}
		for _, p := range rows {
			view, err := st.view(p, p.latest(), "", in.WithDecryption)
			if err != nil {
				return nil, err
			}
			out.Parameters = append(out.Parameters, view)
		}
		return out, nil
	})
}

// optional sets those of the given fields for which v has a value.
func (v *version) optional(description, keyID, allowedPattern **string) {
	for _, o := range []struct {
		value *string
		field **string
	}{{&v.Description, description}, {&v.KeyID, keyID}, {&v.AllowedPattern, allowedPattern}} {
		if *o.value != "" {
			*o.field = o.value
		}
	}
}

// DescribeParameters lists parameters without their values, sorted by name. It omits
// public parameters, as on AWS.
func (s *state) DescribeParameters(ctx context.Context, in *ssm.DescribeParametersInput) (*ssm.DescribeParametersOutput, error) {
	if len(in.Filters) > 0 && len(in.ParameterFilters) > 0 {
		return nil, validation("You can use either Filters or ParameterFilters in a single request.")
	}
	filters := in.ParameterFilters
	for _, f := range in.Filters {
		filters = append(filters, ssm.ParameterStringFilter{Key: aws.String(string(f.Key)), Values: f.Values})
	}
	rows, next, err := s.page(wire.CallerFrom(ctx), nil, filters, in.NextToken, aws.ToInt32(in.MaxResults), 50)
	if err != nil {
		return nil, err
	}
	out := &ssm.DescribeParametersOutput{Parameters: []ssm.ParameterMetadata{}, NextToken: next}
	for _, p := range rows {
		v := p.latest()
		m := ssm.ParameterMetadata{ARN: aws.String(p.arn()), Name: &p.Name, Type: p.Type, Tier: p.Tier, Version: v.Number, DataType: &v.DataType,
			LastModifiedDate: &v.Modified, LastModifiedUser: aws.String("arn:aws:iam::" + p.Account + ":root"), Policies: []ssm.ParameterInlinePolicy{}}
		v.optional(&m.Description, &m.KeyId, &m.AllowedPattern)
		out.Parameters = append(out.Parameters, m)
	}
	return out, nil
}

// DeleteParameters deletes parameters, and lists the names that do not exist.
func (s *state) DeleteParameters(ctx context.Context, in *ssm.DeleteParametersInput) (*ssm.DeleteParametersOutput, error) {
	c := wire.CallerFrom(ctx)
	out := &ssm.DeleteParametersOutput{DeletedParameters: []string{}, InvalidParameters: []string{}}
	for _, name := range in.Names {
		if s.written(durable.NameID(c.Account, c.Region, name)) == nil {
			out.InvalidParameters = append(out.InvalidParameters, name)
			continue
		}
		if _, err := s.DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: &name}); err != nil {
			return nil, err
		}
		out.DeletedParameters = append(out.DeletedParameters, name)
	}
	return out, nil
}

// DeleteParameter deletes a parameter with all its versions.
func (s *state) DeleteParameter(ctx context.Context, in *ssm.DeleteParameterInput) (*ssm.DeleteParameterOutput, error) {
	c := wire.CallerFrom(ctx)
	id := durable.NameID(c.Account, c.Region, *in.Name)
	if s.written(id) == nil {
		return nil, errNotFound()
	}
	return &ssm.DeleteParameterOutput{}, errors.Join(s.forget(id), s.parameters.Drop(id))
}
