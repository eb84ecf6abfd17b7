package ec2

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/durable"
	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

// launchTemplate is a launch template. Its versions are sorted by number.
type launchTemplate struct {
	Region  string
	Account string
	types.LaunchTemplate
	Versions []templateVersion
	Last     int64  // the highest version number ever used, if that version was deleted
	Request  string // fingerprint of the parameters, to tell a repeated client token from a misused one
	Token    string
}

// templateVersion is a version of a launch template. It never changes.
type templateVersion struct {
	Number      int64
	Created     *time.Time
	Creator     *string
	Description *string
	Data        types.RequestLaunchTemplateData
	Token       string // the request's client token; Request is its fingerprint
	Request     string
}

// version returns the version that a request names: a number, $Latest or $Default. An
// empty name means $Default.
func (t *launchTemplate) version(name string) (*templateVersion, error) {
	number, err := strconv.ParseInt(name, 10, 64)
	switch {
	case name == "" || name == "$Default":
		number = *t.DefaultVersionNumber
	case name == "$Latest":
		number = *t.LatestVersionNumber
	case err != nil:
		return nil, invalidValue("Invalid launch template version: either '$Default', '$Latest', or a numeric version are allowed.")
	}
	for i := range t.Versions {
		if t.Versions[i].Number == number {
			return &t.Versions[i], nil
		}
	}
	return nil, wire.Errorf("InvalidLaunchTemplateId.VersionNotFound", "Could not find launch template version %s for %s", name, *t.LaunchTemplateId)
}

// shown returns a version as DescribeLaunchTemplateVersions shows it.
func (t *launchTemplate) shown(v *templateVersion) (types.LaunchTemplateVersion, error) {
	out := types.LaunchTemplateVersion{
		LaunchTemplateId: t.LaunchTemplateId, LaunchTemplateName: t.LaunchTemplateName, CreateTime: v.Created, CreatedBy: v.Creator,
		DefaultVersion: aws.Bool(v.Number == *t.DefaultVersionNumber), VersionNumber: &v.Number, VersionDescription: v.Description,
		LaunchTemplateData: &types.ResponseLaunchTemplateData{},
	}
	if err := recast(v.Data, out.LaunchTemplateData); err != nil {
		return out, err
	}
	for _, b := range out.LaunchTemplateData.BlockDeviceMappings {
		if b.NoDevice != nil {
			*b.NoDevice = ""
		}
	}
	return out, nil
}

// leftOut is the value that a template stores for NoDevice. In a stored template, an empty string
// means that the field is not set; any other string omits the device.
const leftOut = "true"

var templateName = lazyregexp.New(`^[\w().\-/]{3,125}$`)

func errNoTemplate(id, name string) error {
	if id != "" {
		return wire.Errorf("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID %s, does not exist.", id)
	}
	return wire.Errorf("InvalidLaunchTemplateName.NotFoundException", "The specified launch template, with template name %s, does not exist.", name)
}

// findTemplate returns the caller's launch template with that id or name.
func (s *state) findTemplate(c wire.Caller, id, name *string) (*launchTemplate, error) {
	if id != nil {
		if t, ok := s.templates.Get(*id); ok && s.templates.about(*id, t).seen(c) {
			return t, nil
		}
	} else if t := s.templates.named(c, aws.ToString(name)); t != nil {
		return t, nil
	}
	return nil, errNoTemplate(aws.ToString(id), aws.ToString(name))
}

func (s *state) CreateLaunchTemplate(ctx context.Context, in *ec2.CreateLaunchTemplateInput) (*ec2.CreateLaunchTemplateOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindTemplate.resource)
	if err != nil {
		return nil, err
	}
	if err := checkTemplate(in.LaunchTemplateData); err != nil {
		return nil, err
	}
	if !templateName.Get().MatchString(aws.ToString(in.LaunchTemplateName)) {
		return nil, wire.Errorf("InvalidLaunchTemplateName.MalformedException", "A launch template name must be between 3 and 125 characters, and contain letters, numbers, and the characters: -, ., (, ), /, _.")
	}
	if have, err := s.findTemplate(c, nil, in.LaunchTemplateName); err == nil {
		if token := aws.ToString(in.ClientToken); token != "" && have.Token == token && have.Request == fingerprint(in) {
			return &ec2.CreateLaunchTemplateOutput{LaunchTemplate: &have.LaunchTemplate}, nil
		}
		return nil, wire.Errorf("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
	}
	creator, _ := c.Principal()
	now := s.now()
	row := &launchTemplate{Region: c.Region, Account: c.Account, Token: aws.ToString(in.ClientToken), Request: fingerprint(in),
		LaunchTemplate: types.LaunchTemplate{
			LaunchTemplateId: aws.String(newID("lt")), LaunchTemplateName: in.LaunchTemplateName, CreateTime: &now, CreatedBy: &creator,
			DefaultVersionNumber: aws.Int64(1), LatestVersionNumber: aws.Int64(1), Tags: tags[kindTemplate.resource],
		},
		Versions: []templateVersion{{Number: 1, Created: &now, Creator: &creator, Description: notEmpty(in.VersionDescription), Data: *in.LaunchTemplateData}},
	}
	return &ec2.CreateLaunchTemplateOutput{LaunchTemplate: &row.LaunchTemplate}, s.templates.Put(*row.LaunchTemplateId, row)
}

// checkTemplate reports what a launch template cannot hold, and prepares the data for
// storing.
func checkTemplate(data *types.RequestLaunchTemplateData) error {
	for i := range data.BlockDeviceMappings {
		if b := &data.BlockDeviceMappings[i]; b.NoDevice != nil {
			b.NoDevice = aws.String(leftOut)
		}
	}
	for _, spec := range data.TagSpecifications {
		if err := checkTags(spec.Tags); err != nil {
			return err
		}
	}
	return nil
}

// CreateLaunchTemplateVersion adds a version: the request's fields override those of the
// source version, if it names one. The snapshots of the source's devices are not copied,
// as on EC2.
func (s *Service) CreateLaunchTemplateVersion(ctx context.Context, in *ec2.CreateLaunchTemplateVersionInput) (*ec2.CreateLaunchTemplateVersionOutput, error) {
	c := wire.CallerFrom(ctx)
	if err := checkTemplate(in.LaunchTemplateData); err != nil {
		return nil, err
	}
	out, err := try(s, func(st *state) (types.LaunchTemplateVersion, error) { return st.addVersion(c, in) })
	if err == nil && aws.ToBool(in.ResolveAlias) {
		out.LaunchTemplateData.ImageId, err = s.resolved(ctx, out.LaunchTemplateData.ImageId)
	}
	return &ec2.CreateLaunchTemplateVersionOutput{LaunchTemplateVersion: &out}, err
}

// addVersion adds a version to a template and returns it as it is shown.
func (s *state) addVersion(c wire.Caller, in *ec2.CreateLaunchTemplateVersionInput) (out types.LaunchTemplateVersion, err error) {
	t, err := s.findTemplate(c, notEmpty(in.LaunchTemplateId), notEmpty(in.LaunchTemplateName))
	if err != nil {
		return out, err
	}
	token, request := aws.ToString(in.ClientToken), fingerprint(in)
	for i := range t.Versions {
		if v := &t.Versions[i]; token != "" && v.Token == token {
			if v.Request != request {
				return out, errTokenMisused()
			}
			return t.shown(v)
		}
	}
	data := *in.LaunchTemplateData
	if name := aws.ToString(in.SourceVersion); name != "" {
		source, err := t.version(name)
		if err != nil {
			return out, err
		}
		base := types.RequestLaunchTemplateData{}
		if err := recast(source.Data, &base); err != nil { // a copy
			return out, err
		}
		for _, b := range base.BlockDeviceMappings {
			if b.Ebs != nil {
				b.Ebs.SnapshotId = nil
			}
		}
		overlay(&base, data)
		data = base
	}
	now := s.now()
	creator, _ := c.Principal()
	made := templateVersion{Number: max(*t.LatestVersionNumber, t.Last) + 1, Created: &now, Creator: &creator, Description: notEmpty(in.VersionDescription),
		Data: data, Token: token, Request: request}
	err = s.templates.Edit(*t.LaunchTemplateId, func(t *launchTemplate) {
		t.LatestVersionNumber, t.Versions = &made.Number, append(t.Versions, made)
	})
	if err != nil {
		return out, err
	}
	return t.shown(&made)
}

// ModifyLaunchTemplate sets the default version.
func (s *state) ModifyLaunchTemplate(ctx context.Context, in *ec2.ModifyLaunchTemplateInput) (*ec2.ModifyLaunchTemplateOutput, error) {
	t, err := s.findTemplate(wire.CallerFrom(ctx), in.LaunchTemplateId, in.LaunchTemplateName)
	if err != nil {
		return nil, err
	}
	if aws.ToString(in.DefaultVersion) == "" {
		return nil, missing("DefaultVersion")
	}
	v, err := t.version(*in.DefaultVersion)
	if err != nil {
		return nil, err
	}
	if err := s.templates.Edit(*t.LaunchTemplateId, func(t *launchTemplate) { t.DefaultVersionNumber = &v.Number }); err != nil {
		return nil, err
	}
	t, _ = s.templates.Get(*t.LaunchTemplateId)
	return &ec2.ModifyLaunchTemplateOutput{LaunchTemplate: &t.LaunchTemplate}, nil
}

// maxDeletedVersions is the largest number of versions that a request can delete.
const maxDeletedVersions = 200

// DeleteLaunchTemplateVersions deletes versions except the default one, and returns the
// result for each. Version numbers are not used again.
func (s *state) DeleteLaunchTemplateVersions(ctx context.Context, in *ec2.DeleteLaunchTemplateVersionsInput) (*ec2.DeleteLaunchTemplateVersionsOutput, error) {
	t, err := s.findTemplate(wire.CallerFrom(ctx), notEmpty(in.LaunchTemplateId), notEmpty(in.LaunchTemplateName))
	if err != nil {
		return nil, err
	}
	if len(in.Versions) > maxDeletedVersions {
		return nil, invalidValue("%d versions were given; at most %d are allowed.", len(in.Versions), maxDeletedVersions)
	}
	out := &ec2.DeleteLaunchTemplateVersionsOutput{}
	var gone []int64
	for _, name := range in.Versions {
		number, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			return nil, invalidValue("Invalid launch template version '%s': versions to delete must be numbers.", name)
		}
		var wrong *types.ResponseError
		if _, err := t.version(name); err != nil || slices.Contains(gone, number) {
			wrong = &types.ResponseError{Code: types.LaunchTemplateErrorCodeLaunchTemplateVersionDoesNotExist, Message: aws.String("The launch template version " + name + " does not exist.")}
		} else if number == *t.DefaultVersionNumber {
			wrong = &types.ResponseError{Code: types.LaunchTemplateErrorCodeUnexpectedError, Message: aws.String("The default version of a launch template cannot be deleted.")}
		}
		if wrong != nil {
			out.UnsuccessfullyDeletedLaunchTemplateVersions = append(out.UnsuccessfullyDeletedLaunchTemplateVersions, types.DeleteLaunchTemplateVersionsResponseErrorItem{
				LaunchTemplateId: t.LaunchTemplateId, LaunchTemplateName: t.LaunchTemplateName, VersionNumber: &number, ResponseError: wrong})
			continue
		}
		gone = append(gone, number)
		out.SuccessfullyDeletedLaunchTemplateVersions = append(out.SuccessfullyDeletedLaunchTemplateVersions, types.DeleteLaunchTemplateVersionsResponseSuccessItem{
			LaunchTemplateId: t.LaunchTemplateId, LaunchTemplateName: t.LaunchTemplateName, VersionNumber: &number})
	}
	return out, s.templates.Edit(*t.LaunchTemplateId, func(t *launchTemplate) {
		t.Last = max(t.Last, *t.LatestVersionNumber)
		t.Versions = slices.DeleteFunc(t.Versions, func(v templateVersion) bool { return slices.Contains(gone, v.Number) })
		t.LatestVersionNumber = aws.Int64(t.Versions[len(t.Versions)-1].Number) // the default version always remains
	})
}

func (s *state) DeleteLaunchTemplate(ctx context.Context, in *ec2.DeleteLaunchTemplateInput) (*ec2.DeleteLaunchTemplateOutput, error) {
	t, err := s.findTemplate(wire.CallerFrom(ctx), in.LaunchTemplateId, in.LaunchTemplateName)
	if err != nil {
		return nil, err
	}
	return &ec2.DeleteLaunchTemplateOutput{LaunchTemplate: &t.LaunchTemplate}, s.templates.Drop(*t.LaunchTemplateId)
}

var templateFilters = filters{{"create-time", "CreateTime"}, {"launch-template-name", "LaunchTemplateName"}}

func (s *state) DescribeLaunchTemplates(ctx context.Context, in *ec2.DescribeLaunchTemplatesInput) (*ec2.DescribeLaunchTemplatesOutput, error) {
	if err := kindTemplate.checkPage(query{max: in.MaxResults}); err != nil {
		return nil, err
	}
	c := wire.CallerFrom(ctx)
	var ids []string
	for _, id := range in.LaunchTemplateIds {
		t, err := s.findTemplate(c, &id, nil)
		if err != nil {
			return nil, err
		}
		ids = append(ids, *t.LaunchTemplateId)
	}
	for _, name := range in.LaunchTemplateNames {
		t, err := s.findTemplate(c, nil, &name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, *t.LaunchTemplateId)
	}
	var all []types.LaunchTemplate
	for _, t := range s.templates.of(c) {
		all = append(all, t.LaunchTemplate)
	}
	all, next, err := list(s, kindTemplate, query{ids, in.Filters, in.MaxResults, in.NextToken}, all)
	return &ec2.DescribeLaunchTemplatesOutput{LaunchTemplates: all, NextToken: next}, err
}

var versionFilters = filters{
	{"create-time", "CreateTime"}, {"ebs-optimized", "LaunchTemplateData.EbsOptimized"}, {"http-endpoint", "LaunchTemplateData.MetadataOptions.HttpEndpoint"}, {"http-protocol-ipv4", ""},
	{"http-tokens", "LaunchTemplateData.MetadataOptions.HttpTokens"}, {"iam-instance-profile", "LaunchTemplateData.IamInstanceProfile.Arn"},
	{"image-id", "LaunchTemplateData.ImageId"}, {"instance-type", "LaunchTemplateData.InstanceType"}, {"is-default-version", "DefaultVersion"},
	{"host-resource-group-arn", "LaunchTemplateData.Placement.HostResourceGroupArn"}, {"kernel-id", "LaunchTemplateData.KernelId"},
	{"license-configuration-arn", "LaunchTemplateData.LicenseSpecifications.LicenseConfigurationArn"},
	{"network-card-index", "LaunchTemplateData.NetworkInterfaces.NetworkCardIndex"}, {"ram-disk-id", "LaunchTemplateData.RamDiskId"},
}

// DescribeLaunchTemplateVersions shows versions of a template or, if the request names
// none, the latest and the default versions of all templates.
func (s *Service) DescribeLaunchTemplateVersions(ctx context.Context, in *ec2.DescribeLaunchTemplateVersionsInput) (*ec2.DescribeLaunchTemplateVersionsOutput, error) {
	if err := checkMax(in.MaxResults, 1, 200); err != nil {
		return nil, err
	}
	rows, err := try(s, func(st *state) ([]types.LaunchTemplateVersion, error) { return st.versions(wire.CallerFrom(ctx), in) })
	if err != nil {
		return nil, err
	}
	if rows, err = apply(versionFilters, in.Filters, rows); err != nil {
		return nil, err
	}
	if aws.ToBool(in.ResolveAlias) {
		for _, v := range rows {
			if v.LaunchTemplateData.ImageId, err = s.resolved(ctx, v.LaunchTemplateData.ImageId); err != nil {
				return nil, err
			}
		}
	}
	// Newest first, as on EC2.
	key := func(v types.LaunchTemplateVersion) string {
		return fmt.Sprintf("%s %019d", *v.LaunchTemplateId, math.MaxInt64-*v.VersionNumber)
	}
	sort.Slice(rows, func(i, j int) bool { return key(rows[i]) < key(rows[j]) })
	rows, next, err := page(rows, key, in.MaxResults, in.NextToken)
	return &ec2.DescribeLaunchTemplateVersionsOutput{LaunchTemplateVersions: rows, NextToken: next}, err
}

// versions returns the versions that a request asks for.
func (s *state) versions(c wire.Caller, in *ec2.DescribeLaunchTemplateVersionsInput) ([]types.LaunchTemplateVersion, error) {
	var templates []*launchTemplate
	if aws.ToString(in.LaunchTemplateId)+aws.ToString(in.LaunchTemplateName) != "" {
		t, err := s.findTemplate(c, notEmpty(in.LaunchTemplateId), notEmpty(in.LaunchTemplateName))
		if err != nil {
			return nil, err
		}
		templates = []*launchTemplate{t}
	} else {
		if len(in.Versions) == 0 || slices.ContainsFunc(in.Versions, func(v string) bool { return v != "$Latest" && v != "$Default" }) {
			return nil, missing("LaunchTemplateId")
		}
		templates = s.templates.of(c)
	}
	if len(in.Versions) > 0 && (in.MinVersion != nil || in.MaxVersion != nil) {
		return nil, wire.Errorf("InvalidParameterCombination", "The parameter Versions cannot be used with the parameters MinVersion and MaxVersion")
	}
	var out []types.LaunchTemplateVersion
	for _, t := range templates {
		wanted, err := t.wanted(in)
		if err != nil {
			return nil, err
		}
		for i := range t.Versions {
			if !slices.Contains(wanted, t.Versions[i].Number) {
				continue
			}
			v, err := t.shown(&t.Versions[i])
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
	}
	return out, nil
}

// wanted returns the numbers of the versions that a request asks for.
func (t *launchTemplate) wanted(in *ec2.DescribeLaunchTemplateVersionsInput) (out []int64, err error) {
	for _, name := range in.Versions {
		v, err := t.version(name)
		if err != nil {
			return nil, err
		}
		out = append(out, v.Number)
	}
	if len(in.Versions) > 0 {
		return out, nil
	}
	bound := func(name *string, otherwise int64) int64 {
		if aws.ToString(name) == "" || err != nil {
			return otherwise
		}
		var v *templateVersion
		if v, err = t.version(*name); err != nil {
			return otherwise
		}
		return v.Number
	}
	least, most := bound(in.MinVersion, 1), bound(in.MaxVersion, math.MaxInt64)
	for _, v := range t.Versions {
		if v.Number >= least && v.Number <= most {
			out = append(out, v.Number)
		}
	}
	return out, err
}

// recast sets the fields of to, an SDK struct, from the fields of from with the same
// names: launch templates and launches use the same names.
func recast(from, to any) error {
	data, err := durable.Marshal(from) // omits fields that are not set
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

// overlay replaces the fields of base that are set in over. An empty text counts as not
// set.
func overlay[T any](base *T, over T) {
	from, to := reflect.ValueOf(over), reflect.ValueOf(base).Elem()
	for i := range from.NumField() {
		if !to.Field(i).CanSet() || from.Field(i).IsZero() {
			continue
		}
		if text, ok := from.Field(i).Interface().(*string); !ok || *text != "" {
			to.Field(i).Set(from.Field(i))
		}
	}
}

// templated returns the launch that combines a template with a request, whose fields take
// precedence, and the tags that record the template and its version.
func (s *state) templated(c wire.Caller, spec *types.LaunchTemplateSpecification, in *ec2.RunInstancesInput) (*ec2.RunInstancesInput, []types.Tag, error) {
	t, err := s.findTemplate(c, notEmpty(spec.LaunchTemplateId), notEmpty(spec.LaunchTemplateName))
	if err != nil {
		return nil, nil, err
	}
	v, err := t.version(aws.ToString(spec.Version))
	if err != nil {
		return nil, nil, err
	}
	out := &ec2.RunInstancesInput{}
	if err := recast(v.Data, out); err != nil {
		return nil, nil, err
	}
	request := *in
	request.LaunchTemplate = nil
	overlay(out, request)
	return out, []types.Tag{
		{Key: aws.String(reservedTags + "ec2launchtemplate:id"), Value: t.LaunchTemplateId},
		{Key: aws.String(reservedTags + "ec2launchtemplate:version"), Value: aws.String(strconv.FormatInt(v.Number, 10))},
	}, nil
}

// aliasPrefix is the prefix of an image id that names a Systems Manager parameter
// containing the id.
const aliasPrefix = "resolve:ssm:"

// resolved returns an image id. An id of the form resolve:ssm:NAME, optionally with
// :VERSION or :LABEL, is replaced with the current value of the parameter.
func (s *Service) resolved(ctx context.Context, id *string) (*string, error) {
	name, alias := strings.CutPrefix(aws.ToString(id), aliasPrefix)
	if !alias {
		return id, nil
	}
	if s.opts.Parameter == nil {
		return nil, wire.Errorf("Unsupported", "'%s' cannot be resolved: there is no Systems Manager.", *id)
	}
	value, kind, err := s.opts.Parameter(ctx, name)
	switch {
	case err != nil:
		return nil, invalidValue("The parameter '%s' that the image id refers to could not be resolved: %s", name, wire.AsError(err).Message)
	case kind != "aws:ec2:image" && !strings.HasPrefix(name, "/aws/service/"):
		return nil, invalidValue("The parameter '%s' has the data type %s; image ids require the data type aws:ec2:image.", name, kind)
	}
	return &value, nil
}
