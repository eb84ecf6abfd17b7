package images

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
)

// filterValues is how many values a filter of EC2 can have.
const filterValues = 200

// livingStates are the states of instances that are not terminated.
var livingStates = []string{"pending", "running", "shutting-down", "stopping", "stopped"}

// instances finds the instances of images. A terminated one needs its image no more; a
// stopped one does, to be rebuilt or to have its root volume replaced.
func (l *usageScan) instances(ctx context.Context) error {
	in := &ec2.DescribeInstancesInput{MaxResults: aws.Int32(pageSize), Filters: []types.Filter{{
		Name: aws.String("instance-state-name"), Values: livingStates,
	}}}
	if len(l.ids) <= filterValues {
		in.Filters = append(in.Filters, types.Filter{Name: aws.String("image-id"), Values: l.ids})
	}
	return pages(ctx, l.a.session.EC2(l.region).DescribeInstances, in, func(token *string) { in.NextToken = token }, func(out *ec2.DescribeInstancesOutput) *string {
		for _, r := range out.Reservations {
			for _, i := range r.Instances {
				l.use(aws.ToString(i.ImageId), Use{Guard: GuardInstances, User: instanceText(i), id: aws.ToString(i.InstanceId)})
			}
		}
		return out.NextToken
	})
}

// instanceText describes an instance, and what launched it if its tags show that.
func instanceText(i types.Instance) string {
	state := "unknown"
	if i.State != nil {
		state = string(i.State.Name)
	}
	text := fmt.Sprintf("instance %s (%s", aws.ToString(i.InstanceId), state)
	for _, t := range i.Tags {
		switch aws.ToString(t.Key) {
		case "aws:autoscaling:groupName":
			text += ", Auto Scaling group " + aws.ToString(t.Value)
		case "aws:ec2:fleet-id":
			text += ", fleet " + aws.ToString(t.Value)
		case "eks:nodegroup-name":
			text += ", EKS node group " + aws.ToString(t.Value)
		}
	}
	return text + ")"
}

// template is a launch template with its default and its latest version.
type template struct {
	id, name                      string
	defaultNumber, latestNumber   int64
	defaultVersion, latestVersion types.LaunchTemplateVersion
}

func (t *template) String() string { return fmt.Sprintf("launch template %s (%s)", t.id, t.name) }

// version is a version of a launch template that a group or fleet names.
type version struct {
	template string // ID or name
	number   string // or $Default, or $Latest; empty: the default
	by       Use    // the group or fleet
}

// launchTemplates finds the images and snapshots in the default and the latest version of
// each launch template, or in all versions with AllVersions.
func (l *usageScan) launchTemplates(ctx context.Context) error {
	in := &ec2.DescribeLaunchTemplateVersionsInput{Versions: []string{"$Latest", "$Default"}, MaxResults: aws.Int32(200)}
	err := l.templateVersions(ctx, in, func(v types.LaunchTemplateVersion) {
		l.mu.Lock()
		defer l.mu.Unlock()
		t := l.templates[aws.ToString(v.LaunchTemplateId)]
		if t == nil {
			t = &template{id: aws.ToString(v.LaunchTemplateId), name: aws.ToString(v.LaunchTemplateName)}
			l.templates[t.id], l.templates[t.name] = t, t
		}
		n := aws.ToInt64(v.VersionNumber)
		if aws.ToBool(v.DefaultVersion) {
			t.defaultNumber, t.defaultVersion = n, v
		}
		if n >= t.latestNumber {
			t.latestNumber, t.latestVersion = n, v
		}
	})
	if err != nil {
		return err
	}
	for key, t := range l.templates {
		if key != t.id {
			continue
		}
		l.templateUse(t, t.defaultVersion, "default")
		if t.latestNumber != t.defaultNumber {
			l.templateUse(t, t.latestVersion, "latest")
		}
		if !l.g.AllVersions {
			continue
		}
		in := &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: &t.id, MaxResults: aws.Int32(200)}
		err := l.templateVersions(ctx, in, func(v types.LaunchTemplateVersion) {
			if n := aws.ToInt64(v.VersionNumber); n != t.defaultNumber && n != t.latestNumber {
				l.templateUse(t, v, "older")
			}
		})
		if err != nil && !access.NotFound(err) { // a template deleted meanwhile uses nothing
			return err
		}
	}
	return nil
}

func (l *usageScan) templateVersions(ctx context.Context, in *ec2.DescribeLaunchTemplateVersionsInput, each func(types.LaunchTemplateVersion)) error {
	return pages(ctx, l.a.session.EC2(l.region).DescribeLaunchTemplateVersions, in, func(token *string) { in.NextToken = token }, func(out *ec2.DescribeLaunchTemplateVersionsOutput) *string {
		for _, v := range out.LaunchTemplateVersions {
			each(v)
		}
		return out.NextToken
	})
}

func (l *usageScan) templateUse(t *template, v types.LaunchTemplateVersion, which string) {
	l.versionUse(v, Use{Guard: GuardTemplates, User: fmt.Sprintf("%s, %s version %d", t, which, aws.ToInt64(v.VersionNumber)), id: t.id})
}

// versionUse records the image and the snapshots that a version of a launch template
// names. Either may be missing.
func (l *usageScan) versionUse(v types.LaunchTemplateVersion, u Use) {
	data := v.LaunchTemplateData
	if data == nil {
		return
	}
	l.use(aws.ToString(data.ImageId), u)
	for _, b := range data.BlockDeviceMappings {
		if b.Ebs != nil {
			l.maps(aws.ToString(b.Ebs.SnapshotId), u)
		}
	}
}

// maps records that a resource makes volumes from a snapshot.
func (l *usageScan) maps(snapshot string, u Use) {
	if snapshot == "" || !l.g.on(u.Guard) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.snapshots.add(snapshot, u)
}

// names records that a group or fleet launches a version of a template.
func (l *usageScan) names(template, number string, by Use) {
	if template == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.named = append(l.named, version{template, number, by})
}

// namedVersions finds the images and snapshots in the versions of launch templates that
// groups and fleets launch. Versions that do not exist are broken: nothing can be launched
// with them.
func (l *usageScan) namedVersions(ctx context.Context) {
	if l.failed[GuardTemplates] != "" {
		for _, v := range l.named {
			l.unless(v.by.Guard, fmt.Errorf("the launch template of the %s is unknown", v.by.User))
		}
		return
	}
	other := map[version][]Use{} // users of versions that were not listed
	for _, v := range l.named {
		t, by := l.templates[v.template], v.by
		switch {
		case t != nil && slices.Contains([]string{"", "$Default", strconv.FormatInt(t.defaultNumber, 10)}, v.number):
			by.User += fmt.Sprintf(", %s, default version %d", t, t.defaultNumber)
			l.versionUse(t.defaultVersion, by)
		case t != nil && slices.Contains([]string{"$Latest", strconv.FormatInt(t.latestNumber, 10)}, v.number):
			by.User += fmt.Sprintf(", %s, latest version %d", t, t.latestNumber)
			l.versionUse(t.latestVersion, by)
		default:
			key := version{template: v.template, number: cmp.Or(v.number, "$Default")}
			other[key] = append(other[key], by)
		}
	}
	for v, users := range other {
		l.numbered(ctx, v, users)
	}
}

// numbered finds the images and snapshots in one version of a launch template.
func (l *usageScan) numbered(ctx context.Context, v version, users []Use) {
	in := &ec2.DescribeLaunchTemplateVersionsInput{Versions: []string{v.number}}
	if in.LaunchTemplateId = &v.template; !strings.HasPrefix(v.template, "lt-") {
		in.LaunchTemplateId, in.LaunchTemplateName = nil, &v.template
	}
	what, found := fmt.Sprintf("version %s of launch template %s", v.number, v.template), false
	err := l.templateVersions(ctx, in, func(of types.LaunchTemplateVersion) {
		found = true
		for _, by := range users {
			by.User += ", " + what
			l.versionUse(of, by)
		}
	})
	for _, by := range users {
		switch {
		case err != nil && !absentVersion(err):
			l.unless(by.Guard, fmt.Errorf("the %s launches %s: %w", by.User, what, err))
		case !found:
			l.missing(by, what)
		}
	}
}

// absentVersion reports whether err means that a launch template, or a version of it, does
// not exist.
func absentVersion(err error) bool {
	return access.NotFound(err) || strings.HasPrefix(access.Code(err), "InvalidLaunchTemplateId.") || strings.HasPrefix(access.Code(err), "InvalidLaunchTemplateName.")
}

// missing records that a resource refers to something that does not exist.
func (l *usageScan) missing(by Use, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	by.User += " names the " + what + ", which does not exist"
	l.broken = append(l.broken, by)
}

// templateSpec is a reference to a launch template from a group or fleet.
type templateSpec struct {
	ID      string `xml:"launchTemplateId"`
	Name    string `xml:"launchTemplateName"`
	Version string `xml:"version"`
}

// fleetTemplates is the part of EC2 fleets and Spot fleets that names launch templates.
type fleetTemplates struct {
	Spec      templateSpec `xml:"launchTemplateSpecification"`
	Overrides []struct {
		ImageID string `xml:"imageId"`
		Devices []struct {
			Snapshot string `xml:"ebs>snapshotId"`
		} `xml:"blockDeviceMappingSet>item"`
	} `xml:"overrides>item"`
}

func (l *usageScan) fleetUse(configs []fleetTemplates, by Use) {
	for _, c := range configs {
		l.names(cmp.Or(c.Spec.ID, c.Spec.Name), c.Spec.Version, by)
		for _, o := range c.Overrides {
			l.use(o.ImageID, by)
			for _, d := range o.Devices {
				l.maps(d.Snapshot, by)
			}
		}
	}
}

// fleets finds what fleets that may still launch machines use. Fleets of the type instant,
// which EC2 does not list, never launch more.
func (l *usageScan) fleets(ctx context.Context) error {
	q := l.a.session.EC2Query(l.region)
	params := url.Values{"Filter.1.Name": {"fleet-state"}, "MaxResults": {strconv.Itoa(pageSize)}}
	for n, state := range []string{"submitted", "active", "modifying"} {
		params.Set(fmt.Sprintf("Filter.1.Value.%d", n+1), state)
	}
	var fleets struct {
		Fleets []struct {
			ID      string           `xml:"fleetId"`
			State   string           `xml:"fleetState"`
			Configs []fleetTemplates `xml:"launchTemplateConfigs>item"`
		} `xml:"fleetSet>item"`
		Token string `xml:"nextToken"`
	}
	err := queryPages(ctx, q, "DescribeFleets", params, &fleets, func() string {
		for _, f := range fleets.Fleets {
			l.fleetUse(f.Configs, Use{Guard: GuardFleets, User: fmt.Sprintf("EC2 Fleet %s (%s)", f.ID, f.State), id: f.ID})
		}
		return fleets.Token
	})
	if err != nil {
		return err
	}
	var spot struct {
		Requests []struct {
			ID     string `xml:"spotFleetRequestId"`
			State  string `xml:"spotFleetRequestState"`
			Config struct {
				Specs []struct {
					ImageID string `xml:"imageId"`
					Devices []struct {
						Snapshot string `xml:"ebs>snapshotId"`
					} `xml:"blockDeviceMapping>item"`
				} `xml:"launchSpecifications>item"`
				Configs []fleetTemplates `xml:"launchTemplateConfigs>item"`
			} `xml:"spotFleetRequestConfig"`
		} `xml:"spotFleetRequestConfigSet>item"`
		Token string `xml:"nextToken"`
	}
	return queryPages(ctx, q, "DescribeSpotFleetRequests", url.Values{"MaxResults": {strconv.Itoa(pageSize)}}, &spot, func() string {
		for _, r := range spot.Requests {
			if !slices.Contains([]string{"submitted", "active", "modifying"}, r.State) {
				continue
			}
			by := Use{Guard: GuardFleets, User: fmt.Sprintf("Spot Fleet request %s (%s)", r.ID, r.State), id: r.ID}
			l.fleetUse(r.Config.Configs, by)
			for _, s := range r.Config.Specs {
				l.use(s.ImageID, by)
				for _, d := range s.Devices {
					l.maps(d.Snapshot, by)
				}
			}
		}
		return spot.Token
	})
}

// referencesAtOnce is how many images DescribeImageReferences takes.
const referencesAtOnce = 10

// references queries EC2's own record of references to images. It covers less than the
// other guards, but also includes recipes of EC2 Image Builder, and older versions of
// launch templates.
func (l *usageScan) references(ctx context.Context, images []Image) error {
	option := func(name types.ImageReferenceOptionName, values ...string) []types.ResourceTypeOption {
		return []types.ResourceTypeOption{{OptionName: name, OptionValues: values}}
	}
	kinds := []types.ResourceTypeRequest{
		{ResourceType: types.ImageReferenceResourceTypeEc2Instance, ResourceTypeOptions: option(types.ImageReferenceOptionNameStateName, livingStates...)},
		{ResourceType: types.ImageReferenceResourceTypeEc2LaunchTemplate, ResourceTypeOptions: option(types.ImageReferenceOptionNameVersionDepth, "10000")},
		{ResourceType: types.ImageReferenceResourceTypeSsmParameter},
		{ResourceType: types.ImageReferenceResourceTypeImageBuilderImageRecipe},
		{ResourceType: types.ImageReferenceResourceTypeImageBuilderContainerRecipe},
	}
	for some := range slices.Chunk(images, referencesAtOnce) {
		in := &ec2.DescribeImageReferencesInput{ResourceTypes: kinds, MaxResults: aws.Int32(100)}
		for _, i := range some {
			in.ImageIds = append(in.ImageIds, i.ID)
		}
		err := pages(ctx, l.a.session.EC2(l.region).DescribeImageReferences, in, func(token *string) { in.NextToken = token }, func(out *ec2.DescribeImageReferencesOutput) *string {
			for _, r := range out.ImageReferences {
				l.use(aws.ToString(r.ImageId), l.reference(aws.ToString(r.Arn), r.ResourceType))
			}
			return out.NextToken
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// reference converts a result of DescribeImageReferences, which is only an ARN. For a
// launch template, the ARN does not include the version.
func (l *usageScan) reference(arn string, kind types.ImageReferenceResourceType) Use {
	resource := arn
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		resource = parts[5]
	}
	_, id, _ := strings.Cut(resource, "/")
	u := Use{Guard: GuardReferences, User: fmt.Sprintf("%s %s", kind, arn), id: id}
	switch kind {
	case types.ImageReferenceResourceTypeEc2LaunchTemplate:
		u.User = fmt.Sprintf("launch template %s, in an older version", id)
		u.Warning, u.template = !l.g.AllVersions, true
	case types.ImageReferenceResourceTypeSsmParameter:
		u.id = parameterID(id)
	}
	return u
}

// children finds the images that were made from images, in all regions of the account. It
// recognizes them by their source, by bake's parent tag, and by their watermarks, which EC2
// copies to derived images. Derived images do not depend on their parents.
func (l *usageScan) children(ctx context.Context, images []Image) error {
	var ids, marks []string
	for _, i := range images {
		ids, marks = append(ids, i.ID), append(marks, i.Watermarks...)
	}
	said := map[string]bool{}
	say := func(of string, child Image, text string) {
		if pair := of + child.ID; child.ID != of && !said[pair] {
			said[pair] = true
			l.use(of, Use{Guard: GuardChildren, User: fmt.Sprintf("image %s (%s) in %s %s", child.ID, child.Name, child.Region, text), Warning: true})
		}
	}
	found, err := l.a.having(ctx, l.a.Regions, "source-image-id", ids)
	if err != nil {
		return err
	}
	for _, child := range found {
		text := "was made from it"
		if child.isCopy() {
			text = "was copied from it"
		}
		say(child.SourceImage, child, text)
	}
	if found, err = l.a.having(ctx, l.a.Regions, "tag:"+parentTag, ids); err != nil {
		return err
	}
	for _, child := range found {
		say(child.Tags[parentTag], child, "was made from it, by its tag "+parentTag)
	}
	slices.Sort(marks)
	if found, err = l.a.having(ctx, l.a.Regions, "image-watermark.watermark-key", slices.Compact(marks)); err != nil {
		return err
	}
	for _, child := range found {
		for _, i := range images {
			if n := slices.IndexFunc(i.Watermarks, func(m string) bool { return slices.Contains(child.Watermarks, m) }); n >= 0 && child.Created.After(i.Created) {
				say(i.ID, child, "has its watermark "+i.Watermarks[n])
			}
		}
	}
	return nil
}
