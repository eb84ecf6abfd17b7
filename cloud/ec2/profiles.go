package ec2

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/metadata"
	"bake/cloud/wire"
)

// Profiles is the service's interface to IAM.
type Profiles interface {
	// Find returns an account's instance profile by its name or, if the name is empty, by
	// its ARN.
	Find(account, name, arn string) (Profile, bool)
	// IssueCredentials returns credentials of the role of an account's instance profile,
	// for an instance. It returns false if the profile has no role or does not exist.
	IssueCredentials(account, arn, instance string) (Credentials, bool)
}

// Profile is an instance profile.
type Profile struct {
	ARN, ID string
	Role    string // name of the role; empty if there is none
}

// Credentials are the credentials of a role.
type Credentials = metadata.Credentials

// profile returns the instance profile that a launch names, or nil if it names
// none.
func (e *env) profile(c wire.Caller, want *types.IamInstanceProfileSpecification) (*types.IamInstanceProfile, error) {
	if want == nil {
		return nil, nil
	}
	name, arn := aws.ToString(want.Name), aws.ToString(want.Arn)
	if name == "" && arn == "" {
		return nil, nil
	}
	found, ok := e.opts.Profiles.Find(c.Account, name, arn)
	switch {
	case !ok && name != "":
		return nil, invalidValue("Value (%s) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name", name)
	case !ok:
		return nil, invalidValue("Value (%s) for parameter iamInstanceProfile.arn is invalid. Invalid IAM Instance Profile ARN", arn)
	case found.Role == "":
		return nil, invalidValue(`IAM Instance Profile "%s" has no associated IAM Roles`, found.ARN)
	}
	return &types.IamInstanceProfile{Arn: &found.ARN, Id: &found.ID}, nil
}

// metadataRole returns what the instance's metadata says about its role; nil if it has
// none.
func (e *env) metadataRole(in *instance) *metadata.Role {
	if in.IamInstanceProfile == nil {
		return nil
	}
	arn := aws.ToString(in.IamInstanceProfile.Arn)
	profile, ok := e.opts.Profiles.Find(in.OwnerId, "", arn)
	if !ok {
		return nil
	}
	credentials, ok := e.opts.Profiles.IssueCredentials(in.OwnerId, arn, *in.InstanceId)
	if !ok {
		return nil
	}
	return &metadata.Role{ProfileARN: profile.ARN, ProfileID: profile.ID, Name: profile.Role, Credentials: credentials}
}

// association returns the association of an instance with its profile. The profile is an
// attribute of the instance, and the association's id is derived from the instance's.
func association(in *instance) types.IamInstanceProfileAssociation {
	return types.IamInstanceProfileAssociation{
		AssociationId: aws.String(associationID(in)), IamInstanceProfile: in.IamInstanceProfile, InstanceId: in.InstanceId,
		State: types.IamInstanceProfileAssociationStateAssociated,
	}
}

func associationID(in *instance) string {
	return "iip-assoc-" + strings.TrimPrefix(*in.InstanceId, "i-")
}

func (s *state) AssociateIamInstanceProfile(ctx context.Context, in *ec2.AssociateIamInstanceProfileInput) (*ec2.AssociateIamInstanceProfileOutput, error) {
	c := wire.CallerFrom(ctx)
	row, err := s.findInstance(c, in.InstanceId)
	if err != nil {
		return nil, err
	}
	profile, err := s.profile(c, in.IamInstanceProfile)
	if err != nil {
		return nil, err
	}
	switch {
	case profile == nil:
		return nil, missing("IamInstanceProfile.Name")
	case row.IamInstanceProfile != nil:
		return nil, wire.Errorf("IncorrectState", "There is an existing association for instance %s", *row.InstanceId)
	case row.Ended != nil:
		return nil, wire.Errorf("IncorrectInstanceState", "The instance '%s' is not in the 'pending', 'running', 'stopping' or 'stopped' states.", *row.InstanceId)
	}
	if err := s.instances.Edit(*row.InstanceId, func(r *instance) { r.IamInstanceProfile = profile }); err != nil {
		return nil, err
	}
	row, _ = s.instances.Get(*row.InstanceId)
	made := association(row)
	return &ec2.AssociateIamInstanceProfileOutput{IamInstanceProfileAssociation: &made}, nil
}

func (s *state) DisassociateIamInstanceProfile(ctx context.Context, in *ec2.DisassociateIamInstanceProfileInput) (*ec2.DisassociateIamInstanceProfileOutput, error) {
	rows, err := s.instancesOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.IamInstanceProfile == nil || associationID(row) != aws.ToString(in.AssociationId) {
			continue
		}
		gone := association(row)
		gone.State = types.IamInstanceProfileAssociationStateDisassociating
		return &ec2.DisassociateIamInstanceProfileOutput{IamInstanceProfileAssociation: &gone},
			s.instances.Edit(*row.InstanceId, func(r *instance) { r.IamInstanceProfile = nil })
	}
	return nil, wire.Errorf("InvalidAssociationID.NotFound", "An invalid association-id of '%s' was given", aws.ToString(in.AssociationId))
}

var associationFilters = filters{{"instance-id", "InstanceId"}, {"state", "State"}}

func (s *state) DescribeIamInstanceProfileAssociations(ctx context.Context, in *ec2.DescribeIamInstanceProfileAssociationsInput) (*ec2.DescribeIamInstanceProfileAssociationsOutput, error) {
	rows, err := s.instancesOf(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	var all []types.IamInstanceProfileAssociation
	for _, row := range rows {
		if row.IamInstanceProfile != nil && row.Ended == nil {
			all = append(all, association(row))
		}
	}
	all, next, err := list(s, kindAssociation, query{in.AssociationIds, in.Filters, in.MaxResults, in.NextToken}, all)
	return &ec2.DescribeIamInstanceProfileAssociationsOutput{IamInstanceProfileAssociations: all, NextToken: next}, err
}

// anyProfile accepts every well-formed name of an instance profile. The profiles issue no
// credentials.
type anyProfile struct{}

func (anyProfile) Find(account, name, arn string) (Profile, bool) {
	if name != "" {
		arn = "arn:aws:iam::" + account + ":instance-profile/" + name
	}
	_, last, _ := strings.Cut(arn, "/")
	return Profile{ARN: arn, ID: "AIPA" + strings.ToUpper(fingerprint(arn)) + "0", Role: last}, profileName.Get().MatchString(last)
}

func (anyProfile) IssueCredentials(string, string, string) (Credentials, bool) {
	return Credentials{}, false
}
