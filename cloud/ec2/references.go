package ec2

import (
	"context"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// Limits of DescribeImageReferences.
const (
	maxReferenceImages = 10
	maxVersionDepth    = 10000
	usualVersionDepth  = 10 // newest versions of a launch template that are searched
)

// referenceScope says where to look for references to images.
type referenceScope struct {
	types  []types.ImageReferenceResourceType
	states []string // of instances; empty means all
	depth  int      // newest versions of a launch template
}

// scopeOf returns the scope that a request asks for.
func scopeOf(in *ec2.DescribeImageReferencesInput) (referenceScope, error) {
	scope := referenceScope{depth: usualVersionDepth}
	if aws.ToBool(in.IncludeAllResourceTypes) {
		scope.types = types.ImageReferenceResourceType("").Values()
	} else if len(in.ResourceTypes) == 0 {
		return scope, wire.Errorf("MissingParameter", "Either IncludeAllResourceTypes or ResourceTypes must be specified.")
	}
	for _, r := range in.ResourceTypes {
		if r.ResourceType == "" {
			return scope, missing("ResourceType.1.ResourceType")
		}
		scope.types = append(scope.types, r.ResourceType)
		for _, o := range r.ResourceTypeOptions {
			if err := scope.option(r.ResourceType, o); err != nil {
				return scope, err
			}
		}
	}
	return scope, nil
}

// option applies an option of a resource type.
func (r *referenceScope) option(of types.ImageReferenceResourceType, o types.ResourceTypeOption) (err error) {
	switch {
	case len(o.OptionValues) == 0:
		return missing("ResourceTypeOption.OptionValue")
	case of == types.ImageReferenceResourceTypeEc2Instance && o.OptionName == types.ImageReferenceOptionNameStateName:
		for _, state := range o.OptionValues {
			if !slices.Contains(types.InstanceStateName("").Values(), types.InstanceStateName(state)) {
				return invalidValue("Invalid value '%s' for the option state-name.", state)
			}
		}
		r.states = o.OptionValues
		return nil
	case of == types.ImageReferenceResourceTypeEc2LaunchTemplate && o.OptionName == types.ImageReferenceOptionNameVersionDepth:
		r.depth, err = versionDepth(o.OptionValues)
		return err
	}
	return invalidValue("The option '%s' is not valid for the resource type '%s'.", o.OptionName, of)
}

// versionDepth parses the value of the option version-depth.
func versionDepth(values []string) (int, error) {
	depth, err := strconv.Atoi(values[0])
	if err != nil || len(values) != 1 || depth < 1 || depth > maxVersionDepth {
		return 0, invalidValue("Invalid value '%s' for the option version-depth: it must be an integer between 1 and %d.", strings.Join(values, ", "), maxVersionDepth)
	}
	return depth, nil
}

// DescribeImageReferences lists which of the caller's resources refer to images:
// instances, versions of launch templates, and parameters. It does not resolve parameters
// in launch templates, as on EC2.
func (s *Service) DescribeImageReferences(ctx context.Context, in *ec2.DescribeImageReferencesInput) (*ec2.DescribeImageReferencesOutput, error) {
	if n := len(in.ImageIds); n > maxReferenceImages {
		return nil, invalidValue("%d image ids were given; at most %d are allowed.", n, maxReferenceImages)
	}
	if in.MaxResults != nil && *in.MaxResults < 5 {
		return nil, invalidValue("Value ( %d ) for parameter maxResults is invalid. Expecting a value of at least 5.", *in.MaxResults)
	}
	for _, id := range in.ImageIds {
		if err := kindImage.check(id); err != nil {
			return nil, err
		}
	}
	scope, err := scopeOf(in)
	if err != nil {
		return nil, err
	}
	c := wire.CallerFrom(ctx)
	rows, err := try(s, func(st *state) ([]types.ImageReference, error) { return st.references(c, in.ImageIds, scope) })
	if err != nil {
		return nil, err
	}
	if slices.Contains(scope.types, types.ImageReferenceResourceTypeSsmParameter) && s.opts.ImageParameters != nil {
		parameters, err := s.opts.ImageParameters(ctx)
		if err != nil {
			return nil, err
		}
		for arn, id := range parameters {
			if slices.Contains(in.ImageIds, id) {
				rows = append(rows, types.ImageReference{Arn: &arn, ImageId: &id, ResourceType: types.ImageReferenceResourceTypeSsmParameter})
			}
		}
	}
	key := func(r types.ImageReference) string { return *r.ImageId + " " + *r.Arn }
	sort.Slice(rows, func(i, j int) bool { return key(rows[i]) < key(rows[j]) })
	rows, next, err := page(rows, key, in.MaxResults, in.NextToken)
	return &ec2.DescribeImageReferencesOutput{ImageReferences: rows, NextToken: next}, err
}

// references returns the references to the images from the caller's instances and launch
// templates.
func (s *state) references(c wire.Caller, images []string, scope referenceScope) (rows []types.ImageReference, err error) {
	instances, err := s.instancesOf(c)
	if err != nil {
		return nil, err
	}
	add := func(kind types.ImageReferenceResourceType, resource, image string) {
		rows = append(rows, types.ImageReference{Arn: aws.String(arn(c, "ec2", resource)), ImageId: &image, ResourceType: kind})
	}
	if kind := types.ImageReferenceResourceTypeEc2Instance; slices.Contains(scope.types, kind) {
		for _, in := range instances {
			if slices.Contains(images, *in.ImageId) && (len(scope.states) == 0 || slices.Contains(scope.states, string(in.State.Name))) {
				add(kind, kindInstance.resource+"/"+*in.InstanceId, *in.ImageId)
			}
		}
	}
	if kind := types.ImageReferenceResourceTypeEc2LaunchTemplate; slices.Contains(scope.types, kind) {
		for _, t := range s.templates.of(c) {
			for _, id := range t.imageIDs(scope.depth) {
				if slices.Contains(images, id) {
					add(kind, kindTemplate.resource+"/"+*t.LaunchTemplateId, id)
				}
			}
		}
	}
	return rows, nil
}

// imageIDs returns the image ids in the newest depth versions of a launch template,
// without duplicates.
func (t *launchTemplate) imageIDs(depth int) (ids []string) {
	for _, v := range t.Versions[max(0, len(t.Versions)-depth):] {
		if id := aws.ToString(v.Data.ImageId); id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}
