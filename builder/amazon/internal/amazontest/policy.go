package amazontest

import (
	"cmp"
	"maps"
	"net/http"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"bake/builder/amazon"
	"bake/config/schema"
)

// PolicyOf returns the policy for a source block.
func PolicyOf(t testing.TB, maker Maker, in schema.Input) amazon.Policy {
	t.Helper()
	b, diags := maker(amazon.Cloud{}).Outline(in)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return amazon.PolicyFor([]amazon.Permitted{b.(amazon.Permitted)})
}

// Evaluator evaluates a policy the way IAM does.
type Evaluator struct {
	Policy amazon.Policy

	// Foreign is a text that contains the ids of resources that belong to no run.
	Foreign string

	// Packer means that Packer's calls are evaluated as if they tagged resources with the
	// tag of the run.
	Packer bool

	keyPairs []string // that were made
	made     bool     // an image was made: machines may be launched from it after that
}

// demand is one permission that a call needs.
type demand struct {
	action, resource string
	context          map[string][]string // the keys of conditions that have values
}

func (d demand) String() string { return d.action + " on " + d.resource }

// Refused returns the permissions that calls need and that the policy does not grant.
func (e *Evaluator) Refused(calls []Call) (refused []string) {
	for _, c := range calls {
		e.made = e.made || slices.Contains([]string{"CreateImage", "RegisterImage"}, c.Action)
		if c.Action == "RunInstances" && !e.made {
			e.Foreign += " " + c.Params["ImageId"]
		}
		if c.Action == "CreateKeyPair" {
			e.keyPairs = append(e.keyPairs, c.Params["KeyName"])
		}
		for _, d := range e.demands(c) {
			if !e.allows(d) {
				refused = append(refused, d.String())
			}
		}
	}
	slices.Sort(refused)
	return slices.Compact(refused)
}

// Enforce makes the world's cloud refuse, from now on, calls that need permissions which
// the policy does not grant, as IAM does, and calls refused for each.
func (w *World) Enforce(e *Evaluator, refused func(what string)) {
	var mu sync.Mutex
	w.Intercept = func(_ int, c Call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		mu.Lock()
		why := e.Refused([]Call{c})
		mu.Unlock()
		if len(why) == 0 {
			serve(rw)
			return
		}
		refused(strings.Join(why, ", "))
		refuse(w.t, rw)
	}
}

// Unused returns the actions of the policy that none of the calls uses.
func (e *Evaluator) Unused(calls []Call) []string {
	unused := map[string]bool{}
	for _, s := range e.Policy.Statement {
		for _, a := range s.Action {
			unused[a] = true
		}
	}
	for _, c := range calls {
		for _, d := range e.demands(c) {
			delete(unused, d.action)
		}
	}
	return slices.Sorted(maps.Keys(unused))
}

// TracePolicy bakes the template in a directory as [trace] does, and compares what
// its policy allows with the calls of Packer and of bake. bake tags and describes
// things when it makes them, which Packer does afterwards: those calls are left out.
func TracePolicy(t *testing.T, maker Maker, name string, before func(*World)) {
	dir, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var w *World
	foreign := ""
	trace(t, maker, name, func(made *World) {
		w = made
		if before != nil {
			before(w)
		}
		foreign = strings.Join(w.Holdings(), "\n")
	})
	p := PolicyOf(t, maker, blockIn(t, filepath.Join(dir, "template.pkr.hcl")))
	recorded := slices.DeleteFunc(readCalls(t, filepath.Join(dir, "calls.jsonl")), func(c Call) bool {
		return c.Action == "CreateTags" || c.Action == "ModifyImageAttribute" && c.Params["Description.Value"] != ""
	})
	packer, bake := Evaluator{Policy: p, Packer: true}, Evaluator{Policy: p, Foreign: foreign}
	if refused := packer.Refused(recorded); refused != nil {
		t.Errorf("the policy does not allow Packer:\n%s", strings.Join(refused, "\n"))
	}
	if refused := bake.Refused(w.Calls); refused != nil {
		t.Errorf("the policy does not allow bake:\n%s", strings.Join(refused, "\n"))
	}
}

// kinds maps the prefixes of ids to resource kinds.
var kinds = map[string]string{
	"i": "instance", "vol": "volume", "ami": "image", "snap": "snapshot", "sg": "security-group", "subnet": "subnet", "vpc": "vpc",
	"key": "key-pair", "lt": "launch-template", "sir": "spot-instances-request",
}

// makes are the kinds of resource that actions make, by action.
var makes = map[string][]string{
	"RunInstances": {"instance", "volume", "network-interface"}, "CreateImage": {"image", "snapshot"}, "CopyImage": {"image", "snapshot"},
	"RegisterImage": {"image"}, "CreateSnapshot": {"snapshot"}, "CreateSecurityGroup": {"security-group"}, "CreateKeyPair": {"key-pair"},
	"CreateLaunchTemplate": {"launch-template"}, "CreateFleet": {"fleet", "instance", "volume", "network-interface"}, "CreateVolume": {"volume"},
}

var (
	anID     = regexp.MustCompile(`^([a-z]+)-([0-9a-f]{8,17}|<\d+>)$`)
	tagKey   = regexp.MustCompile(`^Tag\.\d+\.Key$`)
	specKind = regexp.MustCompile(`^(?:LaunchTemplateData\.)?TagSpecification\.\d+\.ResourceType$`)
)

// demands returns the permissions that a call needs: its action on each resource that it
// names or makes, and what AWS checks in addition.
func (e *Evaluator) demands(c Call) (all []demand) {
	add := func(action, resource string, context map[string][]string) {
		context["aws:RequestedRegion"] = []string{c.Region}
		all = append(all, demand{action, resource, context})
	}
	profile := cmp.Or(c.Params["IamInstanceProfile.Name"], c.Params["LaunchTemplateData.IamInstanceProfile.Name"])
	if profile != "" {
		add("iam:PassRole", "arn:aws:iam::"+Account+":role/"+profile, map[string][]string{"iam:PassedToService": {"ec2.amazonaws.com"}})
	}
	role, holder := c.Params["RoleName"], c.Params["InstanceProfileName"]
	switch {
	case c.Action == "GetCallerIdentity":
		add("sts:"+c.Action, "*", map[string][]string{})
	case strings.Contains(c.Action, "InstanceProfile") && holder != "":
		add("iam:"+c.Action, "arn:aws:iam::"+Account+":instance-profile/"+holder, map[string][]string{})
		if c.Action == "AddRoleToInstanceProfile" {
			add("iam:PassRole", "arn:aws:iam::"+Account+":role/"+role, map[string][]string{})
		}
	case role != "" && strings.Contains(c.Action, "Role"):
		add("iam:"+c.Action, "arn:aws:iam::"+Account+":role/"+role, map[string][]string{})
	case strings.HasPrefix(c.Action, "Describe"):
		add("ec2:"+c.Action, "*", map[string][]string{})
	default:
		e.ec2Demands(c, add)
	}
	return all
}

// ec2Demands adds the permissions that a modifying call of EC2 needs.
func (e *Evaluator) ec2Demands(c Call, add func(action, resource string, context map[string][]string)) {
	arn := func(region, kind, id string) string {
		account := Account
		if kind == "image" || kind == "snapshot" {
			account = ""
		}
		return "arn:" + partition(region) + ":ec2:" + region + ":" + account + ":" + kind + "/" + id
	}
	var keys []string
	for k, v := range c.Params {
		if tagKey.MatchString(k) {
			keys = append(keys, v)
		}
	}
	for k, v := range c.Params {
		m := anID.FindStringSubmatch(v)
		if m == nil || kinds[m[1]] == "" || strings.Contains(k, "TagSpecification") {
			continue
		}
		region := c.Region
		if k == "SourceImageId" {
			region = c.Params["SourceRegion"]
		}
		context := map[string][]string{"aws:TagKeys": keys}
		if !regexp.MustCompile(`\b` + regexp.QuoteMeta(v)).MatchString(e.Foreign) {
			context["aws:ResourceTag/bake:run"] = []string{"run"}
		}
		add("ec2:"+c.Action, arn(region, kinds[m[1]], v), context)
	}
	if name := c.Params["KeyName"]; name != "" && c.Action == "RunInstances" {
		context := map[string][]string{}
		if slices.Contains(e.keyPairs, name) {
			context["aws:ResourceTag/bake:run"] = []string{"run"}
		}
		add("ec2:"+c.Action, arn(c.Region, "key-pair", name), context)
	}
	if c.Action == "RunInstances" && c.Params["SubnetId"]+c.Params["NetworkInterface.1.SubnetId"] == "" {
		add("ec2:"+c.Action, arn(c.Region, "subnet", "subnet-default"), map[string][]string{})
	}
	if c.Action == "CreateSecurityGroup" && c.Params["VpcId"] == "" {
		add("ec2:"+c.Action, arn(c.Region, "vpc", "vpc-default"), map[string][]string{})
	}
	tagged := map[string]bool{}
	for k, kind := range c.Params {
		if specKind.MatchString(k) {
			tagged[kind] = true
			add("ec2:CreateTags", arn(c.Region, kind, "new"), map[string][]string{"ec2:CreateAction": {c.Action}})
		}
	}
	for _, kind := range makes[c.Action] {
		context := map[string][]string{}
		if tagged[kind] || e.Packer {
			context["aws:RequestTag/bake:run"] = []string{"run"}
		}
		add("ec2:"+c.Action, arn(c.Region, kind, "new"), context)
	}
}

func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// Allows reports whether the policy allows an action, with its service, on a resource in a
// region; "*" stands for actions without resources in AWS.
func (e *Evaluator) Allows(action, resource, region string) bool {
	return e.allows(demand{action, resource, map[string][]string{"aws:RequestedRegion": {region}}})
}

func (e *Evaluator) allows(d demand) bool {
	for _, s := range e.Policy.Statement {
		if slices.Contains(s.Action, d.action) && like(s.Resource, d.resource) && holds(s.Condition, d.context) {
			return true
		}
	}
	return false
}

// like reports whether text matches one of the patterns. In IAM, * matches slashes too.
func like(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(strings.ReplaceAll(p, "/", "\x00"), strings.ReplaceAll(text, "/", "\x00"))
		return ok && err == nil
	})
}

// holds reports whether a whole condition is true.
func holds(condition map[string]map[string][]string, context map[string][]string) bool {
	for op, keys := range condition {
		for key, want := range keys {
			have := context[key]
			fits := func(v string) bool { return slices.Contains(want, v) }
			if op == "StringLike" {
				fits = func(v string) bool { return like(want, v) }
			}
			ok := len(have) > 0 && fits(have[0])
			switch op {
			case "ForAllValues:StringEquals":
				ok = !slices.ContainsFunc(have, func(v string) bool { return !fits(v) })
			case "ForAnyValue:StringEquals":
				ok = slices.ContainsFunc(have, fits)
			case "StringEqualsIfExists":
				ok = ok || len(have) == 0
			}
			if !ok {
				return false
			}
		}
	}
	return true
}
