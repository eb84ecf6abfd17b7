package ec2

import (
	"context"
	"encoding/json"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/durable"
	"bake/cloud/wire"
)

// launchTemplate is a launch template. It has one version.
type launchTemplate struct {
	Region  string
	Account string
	types.LaunchTemplate
	Description *string
	Data        types.RequestLaunchTemplateData
	Request     string // the parameters, to tell a repeated client token from a misused one
	Token       string
}

var templateName = regexp.MustCompile(`^[\w().\-/]{3,125}$`)

func errNoTemplate(id, name string) error {
	if id != "" {
		return wire.Errorf("InvalidLaunchTemplateId.NotFound", "The specified launch template, with template ID %s, does not exist.", id)
	}
	return wire.Errorf("InvalidLaunchTemplateName.NotFoundException", "The specified launch template, with template name %s, does not exist.", name)
}

// findTemplate returns the caller's launch template. The lock is held.
func (s *Service) findTemplate(c wire.Caller, id, name *string) (*launchTemplate, error) {
	for _, t := range s.templates.all() {
		if t.Account != c.Account || t.Region != c.Region {
			continue
		}
		if id != nil && *t.LaunchTemplateId == *id || id == nil && name != nil && *t.LaunchTemplateName == *name {
			return t, nil
		}
	}
	return nil, errNoTemplate(aws.ToString(id), aws.ToString(name))
}

func (s *Service) CreateLaunchTemplate(ctx context.Context, in *ec2.CreateLaunchTemplateInput) (*ec2.CreateLaunchTemplateOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindTemplate.resource)
	if err != nil {
		return nil, err
	}
	for _, spec := range in.LaunchTemplateData.TagSpecifications {
		if err := checkTags(spec.Tags); err != nil {
			return nil, err
		}
	}
	if !templateName.MatchString(aws.ToString(in.LaunchTemplateName)) {
		return nil, wire.Errorf("InvalidLaunchTemplateName.MalformedException", "A launch template name must be between 3 and 125 characters, and contain letters, numbers, and the characters: -, ., (, ), /, _.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, err := s.findTemplate(c, nil, in.LaunchTemplateName); err == nil {
		if token := aws.ToString(in.ClientToken); token != "" && have.Token == token && have.Request == fingerprint(in) {
			return &ec2.CreateLaunchTemplateOutput{LaunchTemplate: &have.LaunchTemplate}, nil
		}
		return nil, wire.Errorf("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
	}
	creator, _ := c.Principal()
	row := &launchTemplate{Region: c.Region, Account: c.Account, Description: in.VersionDescription, Data: *in.LaunchTemplateData, Token: aws.ToString(in.ClientToken), Request: fingerprint(in),
		LaunchTemplate: types.LaunchTemplate{
			LaunchTemplateId: aws.String(newID("lt")), LaunchTemplateName: in.LaunchTemplateName, CreateTime: aws.Time(s.now()), CreatedBy: &creator,
			DefaultVersionNumber: aws.Int64(1), LatestVersionNumber: aws.Int64(1), Tags: tags[kindTemplate.resource],
		}}
	return &ec2.CreateLaunchTemplateOutput{LaunchTemplate: &row.LaunchTemplate}, s.templates.put(*row.LaunchTemplateId, row)
}

func (s *Service) DeleteLaunchTemplate(ctx context.Context, in *ec2.DeleteLaunchTemplateInput) (*ec2.DeleteLaunchTemplateOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.findTemplate(wire.CallerFrom(ctx), in.LaunchTemplateId, in.LaunchTemplateName)
	if err != nil {
		return nil, err
	}
	return &ec2.DeleteLaunchTemplateOutput{LaunchTemplate: &t.LaunchTemplate}, s.templates.drop(*t.LaunchTemplateId)
}

var templateFilters = filters{"create-time": "CreateTime", "launch-template-name": "LaunchTemplateName"}

func (s *Service) DescribeLaunchTemplates(ctx context.Context, in *ec2.DescribeLaunchTemplatesInput) (*ec2.DescribeLaunchTemplatesOutput, error) {
	c := wire.CallerFrom(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range in.LaunchTemplateIds {
		if _, err := s.findTemplate(c, &id, nil); err != nil {
			return nil, err
		}
	}
	for _, name := range in.LaunchTemplateNames {
		if _, err := s.findTemplate(c, nil, &name); err != nil {
			return nil, err
		}
	}
	wanted := func(t *launchTemplate) bool {
		if t.Account != c.Account || t.Region != c.Region {
			return false
		}
		byID, byName := contains(in.LaunchTemplateIds, t.LaunchTemplateId), contains(in.LaunchTemplateNames, t.LaunchTemplateName)
		return byID || byName || len(in.LaunchTemplateIds)+len(in.LaunchTemplateNames) == 0
	}
	var all []types.LaunchTemplate
	for _, t := range s.templates.all() {
		if wanted(t) {
			all = append(all, t.LaunchTemplate)
		}
	}
	all, err := apply(templateFilters, in.Filters, all)
	if err != nil {
		return nil, err
	}
	all, next, err := page(all, func(t types.LaunchTemplate) string { return *t.LaunchTemplateId }, in.MaxResults, in.NextToken)
	return &ec2.DescribeLaunchTemplatesOutput{LaunchTemplates: all, NextToken: next}, err
}

func contains(list []string, text *string) bool {
	for _, l := range list {
		if l == aws.ToString(text) {
			return true
		}
	}
	return false
}

func (s *Service) DescribeLaunchTemplateVersions(ctx context.Context, in *ec2.DescribeLaunchTemplateVersionsInput) (*ec2.DescribeLaunchTemplateVersionsOutput, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.findTemplate(wire.CallerFrom(ctx), in.LaunchTemplateId, in.LaunchTemplateName)
	if err != nil {
		return nil, err
	}
	v := types.LaunchTemplateVersion{
		LaunchTemplateId: t.LaunchTemplateId, LaunchTemplateName: t.LaunchTemplateName, CreateTime: t.CreateTime, CreatedBy: t.CreatedBy,
		DefaultVersion: aws.Bool(true), VersionNumber: aws.Int64(1), VersionDescription: t.Description,
		LaunchTemplateData: &types.ResponseLaunchTemplateData{},
	}
	if err := recast(t.Data, v.LaunchTemplateData); err != nil {
		return nil, err
	}
	return &ec2.DescribeLaunchTemplateVersionsOutput{LaunchTemplateVersions: []types.LaunchTemplateVersion{v}}, nil
}

// recast fills to, a struct of the SDK, with the fields of from that bear the same
// names: what launch templates hold has the names that launches have.
func recast(from, to any) error {
	data, err := durable.Marshal(from) // without what is not set
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

// templated returns the launch that a template and a request give together: the
// request's fields win. The lock is held.
func (s *Service) templated(c wire.Caller, spec *types.LaunchTemplateSpecification, in *ec2.RunInstancesInput) (*ec2.RunInstancesInput, error) {
	t, err := s.findTemplate(c, spec.LaunchTemplateId, spec.LaunchTemplateName)
	if err != nil {
		return nil, err
	}
	switch v := aws.ToString(spec.Version); v {
	case "", "1", "$Latest", "$Default":
	default:
		return nil, wire.Errorf("InvalidLaunchTemplateId.VersionNotFound", "Could not find launch template version %s for %s", v, *t.LaunchTemplateId)
	}
	out := &ec2.RunInstancesInput{}
	if err := recast(t.Data, out); err != nil {
		return nil, err
	}
	request := *in
	request.LaunchTemplate = nil
	if err := recast(request, out); err != nil {
		return nil, err
	}
	return out, nil
}
