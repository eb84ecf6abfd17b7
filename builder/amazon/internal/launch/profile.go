package launch

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/wait"
	"bake/config/schema"
	"bake/step"
)

// Validate implements [schema.Validator].
func (p *PolicyDocument) Validate(c *schema.Checker) {
	if p.Version != "" && p.Version != "2012-10-17" && p.Version != "2008-10-17" {
		c.Errorf(&p.Version, "Unknown version", "The version of the policy language is 2012-10-17 or 2008-10-17.")
	}
	if len(p.Statement) == 0 {
		c.Errorf(&p.Statement, "No statement", "A policy needs at least one Statement block.")
	}
}

// Validate implements [schema.Validator].
func (s *Statement) Validate(c *schema.Checker) {
	if s.Effect != "Allow" && s.Effect != "Deny" {
		c.Errorf(&s.Effect, "Unknown effect", `Effect must be "Allow" or "Deny".`)
	}
	if len(s.Action) == 0 {
		c.Errorf(&s.Action, "No action", "A statement of a policy needs at least one Action.")
	}
	if len(s.Resource) == 0 {
		c.Errorf(&s.Resource, "No resource", "A statement of a policy needs at least one Resource.")
	}
}

// MakesProfile reports whether a temporary instance profile is made for the machine.
func (l *Launcher) MakesProfile() bool {
	return l.replacesProfile || l.IAMInstanceProfile == "" && l.TemporaryIAMInstanceProfilePolicyDocument != nil
}

// sessionPolicy lets the agent of Systems Manager register its machine and carry sessions.
const sessionPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ssm:UpdateInstanceInformation","ssmmessages:*"],"Resource":["*"]}]}`

// Profile returns the name of the instance profile to launch with, or "". It
// checks that the one in the options exists, or makes a temporary one. If the one in the
// options is not there and Session Manager needs one, MakesProfile is true from then on.
func (l *Launcher) Profile(ctx context.Context, tags map[string]string) (string, error) {
	if l.IAMInstanceProfile != "" && !l.replacesProfile {
		name, err := l.checkProfile(ctx)
		l.replacesProfile = err == nil && name == "" && l.SSHInterface == SessionManager
		return name, err
	}
	if !l.MakesProfile() {
		return "", nil
	}
	policy, err := []byte(sessionPolicy), error(nil)
	if !l.replacesProfile {
		policy, err = json.Marshal(l.TemporaryIAMInstanceProfilePolicyDocument)
	}
	if err != nil {
		return "", err
	}
	p := &profile{l: l, client: l.Session.IAM(), name: temporaryPrefix + l.Owner.ID, policy: string(policy)}
	return p.name, p.make(ctx, tags)
}

// checkProfile checks that the instance profile of the options exists. A cloud that
// replaces AWS need not have it: the machine is then launched without it, which is reported.
func (l *Launcher) checkProfile(ctx context.Context) (string, error) {
	standIn := l.Session.Cloud.StandsIn()
	if l.SkipProfileValidation && !standIn {
		return l.IAMInstanceProfile, nil
	}
	return step.Do(ctx, l.Scope, "check the instance profile", func(ctx context.Context) (string, error) {
		err := l.Session.IAM().Do(ctx, "GetInstanceProfile", url.Values{"InstanceProfileName": {l.IAMInstanceProfile}}, &struct{}{})
		switch {
		case access.Is(err, "NoSuchEntity") && standIn && l.SSHInterface == SessionManager:
			l.Scope.Warn(ctx, "There is no instance profile %q here; the machine has a temporary one, with what Session Manager needs.", l.IAMInstanceProfile)
			return "", nil
		case access.Is(err, "NoSuchEntity") && standIn:
			l.Scope.Warn(ctx, "There is no instance profile %q here; the machine has no role.", l.IAMInstanceProfile)
			return "", nil
		case access.Is(err, "NoSuchEntity"):
			err = l.Src.Errorf(&l.IAMInstanceProfile, "No such instance profile", "The account has no instance profile %q.", l.IAMInstanceProfile)
		case access.Is(err, "AccessDenied"):
			err = fmt.Errorf("%w; or set skip_profile_validation", err)
		}
		return l.IAMInstanceProfile, err
	})
}

// temporaryPrefix begins the names of temporary instance profiles and roles.
const temporaryPrefix = "packer-"

// profile is a temporary instance profile being created. Its role and the role's policy
// have the same name.
type profile struct {
	l      *Launcher
	client *access.Query
	name   string
	policy string
}

func (p *profile) make(ctx context.Context, user map[string]string) error {
	// The profile is made first, so that the teardown deletes the role first.
	err := p.acquire(ctx, "create a temporary instance profile", ownership.InstanceProfile, func(ctx context.Context) error {
		params := p.l.Owner.IAMTags(user)
		params.Set("InstanceProfileName", p.name)
		return p.client.Finish(ctx, "CreateInstanceProfile", params)
	})
	if err != nil {
		return err
	}
	err = p.exists(ctx, "instance profile", 40*time.Second, func(ctx context.Context) error {
		return p.client.Do(ctx, "GetInstanceProfile", url.Values{"InstanceProfileName": {p.name}}, &struct{}{})
	})
	if err != nil {
		return err
	}
	err = p.acquire(ctx, "create the role", ownership.Role, func(ctx context.Context) error {
		params := p.l.Owner.IAMTags(user)
		params.Set("RoleName", p.name)
		params.Set("AssumeRolePolicyDocument", trust(p.l.Session.Region))
		params.Set("Description", "Temporary role for bake")
		return p.client.Finish(ctx, "CreateRole", params)
	})
	if err != nil {
		return err
	}
	err = p.exists(ctx, "role", 20*time.Second, func(ctx context.Context) error {
		return p.client.Do(ctx, "GetRole", url.Values{"RoleName": {p.name}}, &struct{}{})
	})
	if err != nil {
		return err
	}
	return step.Run(ctx, p.l.Scope, "attach the policy to the role", func(ctx context.Context) error {
		err := p.client.Do(ctx, "PutRolePolicy", url.Values{"RoleName": {p.name}, "PolicyName": {p.name}, "PolicyDocument": {p.policy}}, nil)
		if access.Is(err, "MalformedPolicyDocument") {
			err = access.Blame(err, p.l.Src.Errorf(&p.l.TemporaryIAMInstanceProfilePolicyDocument, "AWS rejected the policy", "%s.", err))
		}
		if err == nil {
			err = p.client.Do(ctx, "AddRoleToInstanceProfile", url.Values{"InstanceProfileName": {p.name}, "RoleName": {p.name}}, nil)
			if access.Is(err, "LimitExceeded") && !access.Refused(err) {
				err = nil // an earlier attempt succeeded
			}
		}
		return err
	})
}

func (p *profile) acquire(ctx context.Context, what, kind string, create func(context.Context) error) error {
	want := p.l.Owner.Resource(kind, kind+" "+p.name, p.l.Session.Region, ownership.WithName, p.name)
	_, err := ownership.Acquire(ctx, p.l.Scope, what, want, func(ctx context.Context) (string, struct{}, error) {
		err := create(ctx)
		if access.Is(err, "EntityAlreadyExists") && !access.Refused(err) {
			err = nil // an earlier attempt succeeded; the name is unique
		}
		return p.name, struct{}{}, err
	})
	return err
}

// exists waits until a new resource is visible in IAM.
func (p *profile) exists(ctx context.Context, kind string, limit time.Duration, get func(context.Context) error) error {
	return p.l.Session.Watch(time.Second, limit).Until(ctx, kind+" "+p.name+" to exist", func(ctx context.Context) (bool, error) {
		err := get(ctx)
		if access.Is(err, "NoSuchEntity") {
			return false, nil
		}
		return err == nil, err
	})
}

// trust returns the trust policy that lets EC2 assume a role for instances.
func trust(region string) string {
	service := "ec2.amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		service += ".cn"
	}
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":%q},"Action":"sts:AssumeRole"}]}`, service)
}

// awaitProfile waits until EC2 accepts the temporary instance profile that in names, by
// repeating a dry run of the launch.
func (l *Launcher) awaitProfile(ctx context.Context, in *ec2.RunInstancesInput) error {
	w := wait.Watch{Delay: 5 * time.Second, Limit: 45 * time.Second}
	return w.Until(ctx, "EC2 to see instance profile "+aws.ToString(in.IamInstanceProfile.Name), func(ctx context.Context) (bool, error) {
		err := l.dryRun(ctx, in)
		if fresh(err) {
			return false, nil
		}
		return err == nil, l.blameRun(err)
	})
}

// fresh reports whether EC2 does not know an instance profile that has just been
// made.
func fresh(err error) bool {
	if err == nil || !access.Is(err, "InvalidParameterValue") {
		return false
	}
	text := strings.ToLower(strings.ReplaceAll(err.Error(), " ", ""))
	return strings.Contains(text, "iaminstanceprofile")
}
