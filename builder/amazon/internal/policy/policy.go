// Package policy makes IAM policies from the permissions that components need.
package policy

import (
	"encoding/json"
	"slices"
	"strings"

	"bake/internal/imagetag"
)

// Need is something that a component does in AWS.
type Need struct {
	Actions   []string // such as "ec2:RunInstances"
	Resources []string // patterns of ARNs; none: the actions have no resources in AWS
	When      Condition
}

// Condition restricts a need: values by condition key, by condition operator of the policy
// language.
type Condition map[string]map[string][]string

// Document is a policy in the format of IAM.
type Document struct {
	Version   string
	Statement []Statement
}

// Statement allows some actions.
type Statement struct {
	Effect    string
	Action    []string
	Resource  []string
	Condition Condition `json:",omitempty"`
}

// Option reports whether the value of an option is known; see [schema.Source].
type Option interface{ Known(ptr any) bool }

// MayBe reports whether an option may require something: wanted is true, or the value of
// the option at ptr is not known yet.
func MayBe(src Option, ptr any, wanted bool) bool { return wanted || !src.Known(ptr) }

// The tag of the run, which all temporary resources of a build carry.
const tag = imagetag.Run

// The conditions of needs. Those on the tag match any run.
var (
	tagged  = Condition{"StringLike": {"aws:ResourceTag/" + tag: {"*"}}}
	tagging = Condition{"StringLike": {"aws:RequestTag/" + tag: {"*"}}}
)

// Place is one or several regions. The zero value is any region.
type Place struct{ regions []string }

// In returns the place with these regions. If one of them is empty, it is not known, and
// the place is any region.
func In(regions ...string) Place {
	regions = slices.Compact(slices.Sorted(slices.Values(regions)))
	if slices.Contains(regions, "") {
		return Place{}
	}
	return Place{regions}
}

// partition returns the part of AWS that a place is in.
func (p Place) partition() string {
	switch {
	case len(p.regions) == 0:
	case strings.HasPrefix(p.regions[0], "cn-"):
		return "aws-cn"
	case strings.HasPrefix(p.regions[0], "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// service returns the name of a service in the place, such as "ec2.amazonaws.com".
func (p Place) service(name string) string {
	if p.partition() == "aws-cn" && name == "ec2" {
		return name + ".amazonaws.com.cn"
	}
	return name + ".amazonaws.com"
}

// ARNs returns the ARNs of a service's resources in each region of the place, in any
// account.
func (p Place) ARNs(service string, resources ...string) (arns []string) {
	for _, r := range p.each() {
		for _, what := range resources {
			arns = append(arns, "arn:"+p.partition()+":"+service+":"+r+":*:"+what)
		}
	}
	return arns
}

// IAM returns the ARNs of resources of IAM, which is in no region.
func (p Place) IAM(resources ...string) (arns []string) {
	for _, what := range resources {
		arns = append(arns, "arn:"+p.partition()+":iam::*:"+what)
	}
	return arns
}

// Bucket returns the ARNs of resources of S3, which is in no region and no account.
func (p Place) Bucket(resources ...string) (arns []string) {
	for _, what := range resources {
		arns = append(arns, "arn:"+p.partition()+":s3:::"+what)
	}
	return arns
}

func (p Place) each() []string {
	if len(p.regions) == 0 {
		return []string{"*"}
	}
	return p.regions
}

// EC2 returns the ARNs of EC2 resources: of one, such as "subnet/subnet-1", or of all of a
// kind, such as "subnet". A complete ARN is returned unchanged.
func (p Place) EC2(resources ...string) (arns []string) {
	for _, r := range p.each() {
		for _, what := range resources {
			kind, id, one := strings.Cut(what, "/")
			account := "*"
			if kind == "image" || kind == "snapshot" {
				account = "" // their ARNs contain no account
			}
			if !one {
				id = "*"
			}
			if strings.HasPrefix(what, "arn:") {
				arns = append(arns, what)
				continue
			}
			arns = append(arns, "arn:"+p.partition()+":ec2:"+r+":"+account+":"+kind+"/"+id)
		}
	}
	return arns
}

// names adds the name of the service to actions.
func names(service string, actions []string) (out []string) {
	for _, a := range actions {
		out = append(out, service+":"+a)
	}
	return out
}

// Look returns the need for read-only actions of EC2, for which AWS has no resources.
func (p Place) Look(actions ...string) Need {
	n := Need{Actions: names("ec2", actions)}
	if len(p.regions) > 0 {
		n.When = Condition{"StringEquals": {"aws:RequestedRegion": p.regions}}
	}
	return n
}

// Use returns the need for an action of EC2 on resources of any owner.
func (p Place) Use(action string, resources ...string) Need {
	return Need{Actions: []string{"ec2:" + action}, Resources: p.EC2(resources...)}
}

// Own returns the need for an action of EC2 on resources that carry the tag of a run.
func (p Place) Own(action string, resources ...string) Need {
	return Need{Actions: []string{"ec2:" + action}, Resources: p.EC2(resources...), When: tagged}
}

// Make returns the needs for an action of EC2 that makes resources with the tag of the run.
func (p Place) Make(action string, resources ...string) []Need {
	return []Need{
		{Actions: []string{"ec2:" + action}, Resources: p.EC2(resources...), When: tagging},
		p.TagNew(action, resources...),
	}
}

// TagNew returns the need for tagging resources in the action of EC2 that makes them.
func (p Place) TagNew(action string, resources ...string) Need {
	return Need{
		Actions: []string{"ec2:CreateTags"}, Resources: p.EC2(resources...),
		When: Condition{"StringEquals": {"ec2:CreateAction": {action}}},
	}
}

// Release returns the need for removing the tags of the build from resources.
func (p Place) Release(resources ...string) Need {
	return Need{
		Actions: []string{"ec2:DeleteTags"}, Resources: p.EC2(resources...),
		When: Condition{"StringLike": tagged["StringLike"], "ForAllValues:StringEquals": {"aws:TagKeys": {tag, "bake:build"}}},
	}
}

// Pass returns the need for passing roles to a service.
func (p Place) Pass(service string, roles ...string) Need {
	return Need{
		Actions: []string{"iam:PassRole"}, Resources: p.IAM(roles...),
		When: Condition{"StringEqualsIfExists": {"iam:PassedToService": {p.service(service)}}},
	}
}

// ServiceRole returns the need for the role that a service creates in an account when it is
// first used there.
func (p Place) ServiceRole(service, role string) Need {
	return Need{
		Actions: []string{"iam:CreateServiceLinkedRole"}, Resources: p.IAM("role/aws-service-role/" + service + ".amazonaws.com/" + role),
		When: Condition{"StringEquals": {"iam:AWSServiceName": {service + ".amazonaws.com"}}},
	}
}

// Keys returns the needs for using KMS keys for volumes, snapshots and images, through EC2.
// Keys are IDs, aliases or ARNs. An empty one is the account's default key, which needs
// nothing; "*" is a key that is not known yet.
func (p Place) Keys(keys ...string) (needs []Need) {
	for _, key := range keys {
		if key == "" {
			continue
		}
		arns, when := p.key(key)
		via := Condition{"StringLike": {"kms:ViaService": {"ec2.*"}}}
		needs = append(needs,
			Need{Actions: names("kms", []string{"Decrypt", "DescribeKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo"}), Resources: arns, When: both(via, when)},
			Need{Actions: []string{"kms:CreateGrant"}, Resources: arns, When: both(via, when, Condition{"Bool": {"kms:GrantIsForAWSResource": {"true"}}})})
	}
	return needs
}

// Crypt returns the need for actions of KMS on a key, through a service other than EC2. The
// key has any form that [Place.Keys] accepts.
func (p Place) Crypt(service, key string, actions ...string) Need {
	arns, when := p.key(key)
	return Need{Actions: names("kms", actions), Resources: arns, When: both(when, Condition{"StringLike": {"kms:ViaService": {service + ".*"}}})}
}

// Sign returns the need for signing and verifying with a key, in any form that [Place.Keys]
// accepts.
func (p Place) Sign(key string) Need {
	arns, when := p.key(key)
	return Need{Actions: names("kms", []string{"GetPublicKey", "Sign"}), Resources: arns, When: when}
}

// Users returns the needs for finding what uses the account's own images.
func (p Place) Users() []Need { return append(p.Naming(), p.Look("DescribeInstances")) }

// Naming returns the needs for finding what names images or will launch them.
func (p Place) Naming() []Need {
	return append(p.Launching(), Need{Actions: []string{"ssm:DescribeParameters", "ssm:GetParameterHistory", "ssm:GetParameters"}})
}

// Launching returns the needs for finding what will launch images.
func (p Place) Launching() []Need {
	return []Need{
		p.Look("DescribeFleets", "DescribeLaunchTemplateVersions", "DescribeSpotFleetRequests"),
		{Actions: []string{"autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeLaunchConfigurations"}},
	}
}

// Secret returns the needs for reading a secret of Secrets Manager, given by name or ARN;
// "*" is a secret that is not known yet. ARNs of secrets end in six letters that their
// names do not contain. The key that encrypts a secret is not known before it is read.
func (p Place) Secret(name string) []Need {
	arns := p.ARNs("secretsmanager", "secret:"+name+"-??????")
	if strings.HasPrefix(name, "arn:") {
		arns = []string{name}
	}
	return []Need{{Actions: []string{"secretsmanager:GetSecretValue"}, Resources: arns}, p.Crypt("secretsmanager", "*", "Decrypt")}
}

// key returns the ARNs by which a policy refers to a key. Policies do not match the ARN of
// an alias; a condition names the alias instead.
func (p Place) key(key string) (arns []string, when Condition) {
	if rest, ok := strings.CutPrefix(key, "arn:"); ok && !strings.Contains(rest, ":alias/") {
		return []string{key}, nil
	}
	if _, alias, ok := strings.Cut(key, "alias/"); ok {
		return p.ARNs("kms", "key/*"), Condition{"ForAnyValue:StringEquals": {"kms:ResourceAliases": {"alias/" + alias}}}
	}
	return p.ARNs("kms", "key/"+key), nil
}

// both returns a condition that combines all conditions.
func both(all ...Condition) Condition {
	out := Condition{}
	for _, c := range all {
		for op, keys := range c {
			if out[op] == nil {
				out[op] = map[string][]string{}
			}
			for k, v := range keys {
				out[op][k] = v
			}
		}
	}
	return out
}

// Make returns a policy that allows exactly the needs, in the order of their first
// occurrence and without duplicates.
func Make(needs []Need) Document {
	d := Document{Version: "2012-10-17", Statement: []Statement{}}
	for _, n := range needs {
		if len(n.Resources) == 0 {
			n.Resources = []string{"*"}
		}
		d.Statement = append(d.Statement, Statement{"Allow", set(n.Actions), set(n.Resources), n.When})
	}
	// Statements that differ in only one element are merged: the result allows the same.
	for range 2 {
		d.merge(func(s Statement) any { return [...]any{s.Resource, s.Condition} }, func(s, more *Statement) { s.Action = set(append(s.Action, more.Action...)) })
		d.merge(func(s Statement) any { return [...]any{s.Action, s.Condition} }, func(s, more *Statement) { s.Resource = set(append(s.Resource, more.Resource...)) })
		d.merge(func(s Statement) any { return [...]any{s.Action, s.Resource, s.creation()} }, func(s, more *Statement) {
			if keys := s.Condition["StringEquals"]; len(keys["ec2:CreateAction"]) > 0 {
				s.Condition = Condition{"StringEquals": {"ec2:CreateAction": set(append(keys["ec2:CreateAction"], more.Condition["StringEquals"]["ec2:CreateAction"]...))}}
			}
		})
	}
	return d
}

// Across returns the policy, which is for the region home, for each of these regions
// instead. Statements for other regions stay. With several regions, a condition restricts
// the region of a call: separate ARNs for each region would exceed the size limit of a
// policy.
func (d Document) Across(home string, regions []string) Document {
	out := Document{Version: d.Version}
	for _, s := range d.Statement {
		in := slices.Clone(s.Condition["StringEquals"]["aws:RequestedRegion"])
		var there, others []string // resources in regions, and those of any or of none
		for _, r := range s.Resource {
			parts := strings.SplitN(r, ":", 5)
			if len(parts) < 5 || parts[3] == "" || parts[3] == "*" {
				others = append(others, r)
				continue
			}
			in = append(in, parts[3])
			parts[3] = "*"
			there = append(there, strings.Join(parts, ":"))
		}
		if !slices.Contains(in, home) {
			out.Statement = append(out.Statement, s)
			continue
		}
		if len(there) == 0 {
			there, others = others, nil
		}
		if len(others) > 0 {
			out.Statement = append(out.Statement, Statement{s.Effect, s.Action, others, s.Condition})
		}
		in = slices.DeleteFunc(in, func(r string) bool { return r == home })
		s.Resource = set(there)
		s.Condition = both(s.Condition, Condition{"StringEquals": {"aws:RequestedRegion": set(append(in, regions...))}})
		out.Statement = append(out.Statement, s)
	}
	return out
}

// creation returns the condition without the list of actions that create tagged resources.
func (s Statement) creation() any {
	if len(s.Condition["StringEquals"]["ec2:CreateAction"]) > 0 {
		return "creation"
	}
	return s.Condition
}

// merge makes one statement of those with the same key.
func (d *Document) merge(key func(Statement) any, join func(s, more *Statement)) {
	at := map[string]int{}
	var out []Statement
	for _, s := range d.Statement {
		b, err := json.Marshal(key(s))
		if err != nil {
			panic(err) // strings, and lists and maps of strings
		}
		if i, ok := at[string(b)]; ok {
			join(&out[i], &s)
			continue
		}
		at[string(b)] = len(out)
		out = append(out, s)
	}
	d.Statement = out
}

func set(s []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(s)))
}
