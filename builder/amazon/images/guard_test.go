package images_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"bake/builder/amazon/images"
	"bake/cloud"
)

// later is a time at which nothing made by a test is recent any more.
func later() time.Time { return time.Now().Add(60 * 24 * time.Hour) }

// nobody answers the queries of guards for services that the embedded cloud lacks, with
// empty results.
var nobody = map[string]string{
	"DescribeAutoScalingGroups":    "<DescribeAutoScalingGroupsResult/>",
	"DescribeLaunchConfigurations": "<DescribeLaunchConfigurationsResult/>",
	"DescribeFleets":               "",
	"DescribeSpotFleetRequests":    "",
	"ListImagesInRecycleBin":       "",
	"DescribeLockedSnapshots":      "",
	"DescribeFastSnapshotRestores": "",
	"DescribeFastLaunchImages":     "",
}

// answering answers some actions with a given response body, and forwards the others to
// the cloud.
func answering(answers ...map[string]string) func(int, call, http.ResponseWriter, func(http.ResponseWriter)) {
	return func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		for _, of := range answers {
			if inside, ok := of[c.Action]; ok {
				fmt.Fprintf(rw, "<%sResponse>%s</%sResponse>", c.Action, inside, c.Action)
				return
			}
		}
		serve(rw)
	}
}

// launch launches an instance, and waits until it runs.
func (w *world) launch(image string) string {
	w.t.Helper()
	c := w.client("default", home)
	out, err := c.RunInstances(w.t.Context(), &ec2.RunInstancesInput{ImageId: &image, InstanceType: types.InstanceTypeT3Micro, MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
	w.fatal(err)
	id := *out.Instances[0].InstanceId
	w.await(id, types.InstanceStateNameRunning)
	return id
}

func (w *world) terminate(id string) {
	w.t.Helper()
	_, err := w.client("default", home).TerminateInstances(w.t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	w.fatal(err)
	w.await(id, types.InstanceStateNameTerminated)
}

func (w *world) await(instance string, state types.InstanceStateName) {
	w.t.Helper()
	w.until("the instance is "+string(state), func() bool {
		out, err := w.client("default", home).DescribeInstances(w.t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{instance}})
		w.fatal(err)
		return out.Reservations[0].Instances[0].State.Name == state
	})
}

// bootable makes an image of a machine, and terminates that.
func (w *world) bootable(name string) string {
	w.t.Helper()
	c := w.client("default", home)
	bases, err := c.DescribeImages(w.t.Context(), &ec2.DescribeImagesInput{Owners: []string{"136693071363"}})
	w.fatal(err)
	machine := w.launch(*bases.Images[0].ImageId)
	out, err := c.CreateImage(w.t.Context(), &ec2.CreateImageInput{InstanceId: &machine, Name: &name, NoReboot: aws.Bool(true)})
	w.fatal(err)
	w.until("the image is available", func() bool {
		found, err := c.DescribeImages(w.t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{*out.ImageId}})
		w.fatal(err)
		return found.Images[0].State == types.ImageStateAvailable
	})
	w.terminate(machine)
	return *out.ImageId
}

// template makes a launch template whose versions have these images, and returns its ID.
// The first is the default.
func (w *world) template(name string, ids ...string) string {
	w.t.Helper()
	c := w.client("default", home)
	of := func(image string) *types.RequestLaunchTemplateData {
		data := &types.RequestLaunchTemplateData{InstanceType: types.InstanceTypeT3Micro}
		if image != "" {
			data.ImageId = &image
		}
		return data
	}
	out, err := c.CreateLaunchTemplate(w.t.Context(), &ec2.CreateLaunchTemplateInput{LaunchTemplateName: &name, LaunchTemplateData: of(ids[0])})
	w.fatal(err)
	for _, image := range ids[1:] {
		_, err := c.CreateLaunchTemplateVersion(w.t.Context(), &ec2.CreateLaunchTemplateVersionInput{LaunchTemplateName: &name, LaunchTemplateData: of(image)})
		w.fatal(err)
	}
	return *out.LaunchTemplate.LaunchTemplateId
}

// parameter sets a parameter to images, one after the other.
func (w *world) parameter(name string, ids ...string) { w.parameterIn(home, name, ids...) }

func (w *world) parameterIn(region, name string, ids ...string) {
	w.t.Helper()
	c := ssm.NewFromConfig(w.Config("default", region))
	for n, image := range ids {
		out, err := c.PutParameter(w.t.Context(), &ssm.PutParameterInput{
			Name: &name, Value: &image, Type: ssmtypes.ParameterTypeString, DataType: aws.String("aws:ec2:image"), Overwrite: aws.Bool(n > 0),
		})
		w.fatal(err)
		w.until("the parameter is valid", func() bool {
			_, err := c.GetParameter(w.t.Context(), &ssm.GetParameterInput{Name: aws.String(fmt.Sprintf("%s:%d", name, out.Version))})
			return err == nil
		})
	}
}

// TestGuards: the kinds of uses of an image, and resources that only look like uses.
func TestGuards(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{})
	made := map[string]string{}
	for _, name := range []string{
		"free", "held", "protected", "default", "latest", "older", "pinned", "alias", "label", "channel", "before", "longbefore",
		"group", "mixed", "override", "configuration", "fleet", "spot", "cancelled", "shared",
	} {
		made[name] = w.image(home, name)
	}
	c, ctx := w.client("default", home), t.Context()
	tag := func(id, key, value string) {
		_, err := c.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: &key, Value: &value}}})
		w.fatal(err)
	}
	tag(made["held"], "bake:hold", "release 7, Ann")
	_, err := c.EnableImageDeregistrationProtection(ctx, &ec2.EnableImageDeregistrationProtectionInput{ImageId: aws.String(made["protected"])})
	w.fatal(err)
	made["running"], made["terminated"] = w.bootable("running"), w.bootable("terminated")
	w.launch(made["running"])
	ended := w.launch(made["terminated"])
	w.terminate(ended)
	versions := w.template("versions", made["default"], made["older"], made["pinned"], made["latest"])
	w.template("empty", "")
	w.parameter("/golden/alias", made["alias"])
	w.parameter("/golden/label", made["label"], made["alias"])
	_, err = ssm.NewFromConfig(w.Config("default", home)).LabelParameterVersion(ctx, &ssm.LabelParameterVersionInput{Name: aws.String("/golden/label"), ParameterVersion: aws.Int64(1), Labels: []string{"stable"}})
	w.fatal(err)
	w.template("by-parameter", "resolve:ssm:/golden/alias", "resolve:ssm:/golden/label:stable")
	w.parameter("/golden/channel", made["longbefore"], made["before"], made["channel"], made["channel"])
	w.fatal(permit(c, made["shared"], types.LaunchPermission{UserId: aws.String("987654321098")}))
	w.watch(answering(map[string]string{
		"DescribeAutoScalingGroups": fmt.Sprintf(`<DescribeAutoScalingGroupsResult><AutoScalingGroups>
<member><AutoScalingGroupName>pinning</AutoScalingGroupName><LaunchTemplate><LaunchTemplateId>%s</LaunchTemplateId><Version>3</Version></LaunchTemplate></member>
<member><AutoScalingGroupName>lost</AutoScalingGroupName><LaunchTemplate><LaunchTemplateName>gone</LaunchTemplateName></LaunchTemplate></member>
<member><AutoScalingGroupName>old</AutoScalingGroupName><LaunchConfigurationName>conf</LaunchConfigurationName></member>
<member><AutoScalingGroupName>mixed</AutoScalingGroupName><MixedInstancesPolicy><LaunchTemplate>
<LaunchTemplateSpecification><LaunchTemplateName>versions</LaunchTemplateName><Version>$Latest</Version></LaunchTemplateSpecification>
<Overrides><member><ImageId>%s</ImageId></member></Overrides></LaunchTemplate></MixedInstancesPolicy></member>
</AutoScalingGroups></DescribeAutoScalingGroupsResult>`, versions, made["override"]),
		"DescribeLaunchConfigurations": fmt.Sprintf(`<DescribeLaunchConfigurationsResult><LaunchConfigurations>
<member><LaunchConfigurationName>conf</LaunchConfigurationName><ImageId>%s</ImageId></member></LaunchConfigurations></DescribeLaunchConfigurationsResult>`, made["configuration"]),
		"DescribeFleets": fmt.Sprintf(`<fleetSet><item><fleetId>fleet-1</fleetId><fleetState>active</fleetState><launchTemplateConfigs><item>
<launchTemplateSpecification><launchTemplateName>versions</launchTemplateName></launchTemplateSpecification>
<overrides><item><imageId>%s</imageId></item></overrides></item></launchTemplateConfigs></item></fleetSet>`, made["fleet"]),
		"DescribeSpotFleetRequests": fmt.Sprintf(`<spotFleetRequestConfigSet>
<item><spotFleetRequestId>sfr-1</spotFleetRequestId><spotFleetRequestState>active</spotFleetRequestState><spotFleetRequestConfig><launchSpecifications><item><imageId>%s</imageId></item></launchSpecifications></spotFleetRequestConfig></item>
<item><spotFleetRequestId>sfr-2</spotFleetRequestId><spotFleetRequestState>cancelled</spotFleetRequestState><spotFleetRequestConfig><launchSpecifications><item><imageId>%s</imageId></item></launchSpecifications></spotFleetRequestConfig></item>
</spotFleetRequestConfigSet>`, made["spot"], made["cancelled"]),
	}))
	a := w.open(home)
	all, err := a.List(ctx, images.Query{})
	w.fatal(err)
	g := images.Guards{Now: later}
	uses := a.Uses(ctx, all, g)
	for name, want := range map[string]string{
		"free": "", "group": "", "mixed": "", "terminated": "", "longbefore": "", "cancelled": "",
		"held":          "held: held by the tag bake:hold: release 7, Ann",
		"protected":     "held: deregistration protection: enabled-without-cooldown",
		"running":       "instances: instance i- (running)",
		"default":       "templates: launch template lt- (versions), default version 1 | fleets: EC2 Fleet fleet-1 (active), launch template lt- (versions), default version 1",
		"latest":        "templates: launch template lt- (versions), latest version 4 | scaling: Auto Scaling group mixed, launch template lt- (versions), latest version 4",
		"older":         "warning: launch template lt-, in an older version",
		"pinned":        "scaling: Auto Scaling group pinning, version 3 of launch template lt-",
		"alias":         "channel: parameter /golden/alias | channel: parameter /golden/label | templates: launch template lt- (by-parameter), default version 1, by the parameter /golden/alias",
		"label":         "channel: parameter /golden/label, as its previous value, which a rollback needs | templates: launch template lt- (by-parameter), latest version 2, by the parameter /golden/label:stable",
		"channel":       "channel: parameter /golden/channel",
		"before":        "channel: parameter /golden/channel, as its previous value, which a rollback needs",
		"configuration": "scaling: launch configuration conf of Auto Scaling group old",
		"override":      "scaling: Auto Scaling group mixed",
		"fleet":         "fleets: EC2 Fleet fleet-1 (active)",
		"spot":          "fleets: Spot Fleet request sfr-1 (active)",
		"shared":        "receivers: shared with 987654321098",
	} {
		if got := said(uses[made[name]]); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	g.AllVersions = true
	uses = a.Uses(ctx, all, g)
	if got, want := said(uses[made["older"]]), "templates: launch template lt- (versions), older version 2"; got != want {
		t.Errorf("with all versions: got %s, want %s", got, want)
	}
	g.Now = time.Now
	if got := said(a.Uses(ctx, all, g)[made["free"]]); !strings.Contains(got, "recent: created on ") {
		t.Errorf("a new image: %s", got)
	}
	g.Ignore = []string{images.GuardRecent}
	if got := said(a.Uses(ctx, all, g)[made["free"]]); got != "" {
		t.Errorf("a new image, without that guard: %s", got)
	}
}

// said formats uses on one line, without the variable part of IDs.
func said(uses []images.Use) string {
	var parts []string
	for _, u := range uses {
		words := strings.FieldsFunc(u.User, func(r rune) bool { return r == ' ' })
		for n, word := range words {
			for _, kind := range []string{"i-", "lt-"} {
				if rest, ok := strings.CutPrefix(word, kind); ok {
					words[n] = kind
					if strings.HasSuffix(rest, ",") {
						words[n] += ","
					}
				}
			}
		}
		kind := u.Guard
		switch {
		case u.Unknown:
			kind = "unknown"
		case u.Warning:
			kind = "warning"
		}
		parts = append(parts, kind+": "+strings.Join(words, " "))
	}
	return strings.Join(parts, " | ")
}

// permit shares an image.
func permit(c *ec2.Client, image string, with types.LaunchPermission) error {
	_, err := c.ModifyImageAttribute(context.Background(), &ec2.ModifyImageAttributeInput{ImageId: &image, LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{with}}})
	return err
}

// TestGuardsThatCannotTell: if a query fails, the image counts as used, and the guard
// is named.
func TestGuardsThatCannotTell(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	id := w.image(home, "web")
	w.template("by-parameter", "resolve:ssm:/golden/web")
	w.parameter("/golden/web", id, w.image(home, "newer"))
	a := w.open(home)
	found, err := a.Find(t.Context(), id)
	w.fatal(err)
	for action, guard := range map[string]string{
		"DescribeInstances": images.GuardInstances, "DescribeLaunchTemplateVersions": images.GuardTemplates, "DescribeAutoScalingGroups": images.GuardScaling,
		"DescribeLaunchConfigurations": images.GuardScaling, "DescribeFleets": images.GuardFleets, "DescribeSpotFleetRequests": images.GuardFleets,
		"DescribeImageReferences": images.GuardReferences, "DescribeParameters": images.GuardChannel, "GetParameters": images.GuardTemplates,
		"DescribeImageAttribute": images.GuardReceivers,
	} {
		others := answering(nobody)
		w.watch(func(n int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
			if c.Action != action {
				others(n, c, rw, serve)
				return
			}
			if c.Service == "ssm" {
				rw.Header().Set("Content-Type", "application/x-amz-json-1.1")
				rw.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(rw, `{"__type":"AccessDeniedException","message":"no"}`)
				return
			}
			refuse(rw)
		})
		uses := a.Uses(t.Context(), found, images.Guards{Now: later})[id]
		known := false
		for _, u := range uses {
			known = known || u.Unknown && u.Guard == guard
		}
		if !known || !images.InUse(uses) {
			t.Errorf("%s is refused: %s", action, said(uses))
		}
		uses = a.Uses(t.Context(), found, images.Guards{Now: later, Ignore: []string{guard, images.GuardChannel, images.GuardTemplates}})[id]
		if images.InUse(uses) {
			t.Errorf("%s is refused and %s ignored: %s", action, guard, said(uses))
		}
	}
}

// TestGuardsOfTheCloud: the embedded cloud answers all queries of the guards, including
// those about accounts that an image is shared with.
func TestGuardsOfTheCloud(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	id := w.image(home, "web")
	w.fatal(permit(w.client("default", home), id, types.LaunchPermission{UserId: aws.String("987654321098")}))
	a := w.open(home)
	found, err := a.Find(t.Context(), id)
	w.fatal(err)
	for _, u := range a.Uses(t.Context(), found, images.Guards{Now: later, Reports: true, Children: true})[id] {
		if !u.Warning {
			t.Errorf("%s", u)
		}
	}
	orphan := w.orphan(goneImage)
	lost, err := a.Orphans(t.Context(), images.OrphanOptions{Now: later})
	w.fatal(err)
	if len(lost) != 1 || lost[0].ID != orphan || lost[0].Kept != "" {
		t.Errorf("orphans: %+v", lost)
	}
}

// TestCheckUseOfWrongID: resources that name a missing image, or an invalid ID, are found, and
// do not prevent other checks.
func TestCheckUseOfWrongID(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	id := w.image(home, "web")
	for name, image := range map[string]string{"good": id, "gone": goneImage, "wrong": "ami-typo"} {
		w.template(name, image)
	}
	broken, err := w.open(home).CheckUse(t.Context())
	w.fatal(err)
	var found []string
	for _, b := range broken {
		found = append(found, b.Image)
	}
	slices.Sort(found)
	if want := []string{goneImage, "ami-typo"}; !slices.Equal(found, want) {
		t.Errorf("got %v, want %v", broken, want)
	}
}

// role creates a role with which the test's account can query the other one.
func (w *world) role() images.Role { return images.Role{ARN: roles} }

// TestReceiversAsked: with a role, the accounts that an image is shared with are queried
// directly; if that fails, the image counts as used.
func TestReceiversAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{}).trusting()
	made := map[string]string{}
	for _, name := range []string{"idle", "template", "configuration", "channel", "text", "instance", "alone"} {
		if made[name] = w.image(home, name); name == "instance" {
			made[name] = w.bootable("bootable")
		}
		if name != "alone" {
			w.fatal(permit(w.client("default", home), made[name], types.LaunchPermission{UserId: aws.String(otherID)}))
		}
	}
	ctx, there, parameters := t.Context(), w.client(other, home), ssm.NewFromConfig(w.Config(other, home))
	_, err := there.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("web"), LaunchTemplateData: &types.RequestLaunchTemplateData{ImageId: aws.String(made["template"])}})
	w.fatal(err)
	_, err = there.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: aws.String(made["instance"]), MinCount: aws.Int32(1), MaxCount: aws.Int32(1), InstanceType: types.InstanceTypeT3Micro})
	w.fatal(err)
	for name, kind := range map[string]string{"channel": "aws:ec2:image", "text": "text"} {
		_, err := parameters.PutParameter(ctx, &ssm.PutParameterInput{Name: aws.String("/" + name), Value: aws.String(made[name]), Type: ssmtypes.ParameterTypeString, DataType: &kind})
		w.fatal(err)
	}
	w.until("the channel is there", func() bool {
		_, err := parameters.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String("/channel")})
		return err == nil
	})
	w.watch(func(n int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if strings.Contains(c.Action, "UsageReport") {
			t.Errorf("%s is called, though the account can be asked", c.Action)
		}
		serve(rw)
	})
	a := w.open(home)
	all, err := a.List(ctx, images.Query{})
	w.fatal(err)
	g := images.Guards{Now: later, Reports: true, Role: w.role()}
	uses := a.Uses(ctx, all, g)
	const account = "account " + otherID + ", which it is shared with"
	for name, want := range map[string]string{
		"alone": "", "configuration": "warning: " + account + ", has nothing that uses it", "idle": "warning: " + account + ", has nothing that uses it",
		"template": "receivers: " + account + ": launch template lt- (web), default version 1",
		"instance": "receivers: " + account + ": instance i- (running)",
		"channel":  "receivers: " + account + ": parameter /channel",
		"text":     "receivers: " + account + ": parameter /text, a text",
	} {
		if got := said(uses[made[name]]); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Action == "AssumeRole" {
			refuse(rw)
			return
		}
		serve(rw)
	})
	uses = w.open(home).Uses(ctx, all, g)
	if got := said(uses[made["idle"]]); !strings.HasPrefix(got, "unknown: "+account+": whether it uses it is not known: ") || images.InUse(uses[made["alone"]]) {
		t.Errorf("no role: %s, %s", got, said(uses[made["alone"]]))
	}
	// Before an account loses the image, it is queried too.
	w.watch(nil)
	a = w.open(home)
	for name, want := range map[string]bool{"idle": false, "template": true} {
		_, err := a.Unshare(ctx, made[name], images.SharingChange{With: []string{otherID}, Guard: a.Receivers(images.Guards{Role: w.role()})})
		if _, used := errors.AsType[*images.InUseError](err); used != want || !used && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTextsAndChildren: text parameters count if they contain the ID of an image, and
// images made from an image are recognized not only by their source.
func TestTextsAndChildren(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{})
	ctx, parameters := t.Context(), ssm.NewFromConfig(w.Config("default", home))
	made := map[string]string{}
	for _, name := range []string{"one", "list", "json", "free"} {
		made[name] = w.image(home, name)
	}
	put := func(name, value string, kind ssmtypes.ParameterType) {
		_, err := parameters.PutParameter(ctx, &ssm.PutParameterInput{Name: &name, Value: &value, Type: kind})
		w.fatal(err)
	}
	put("/one", made["one"]+"\n", ssmtypes.ParameterTypeString)
	put("list", goneImage+","+made["list"], ssmtypes.ParameterTypeStringList)
	put("/json", `{"image": "`+made["json"]+`", "no": "ami-00", "nor": "my`+made["free"]+`0"}`, ssmtypes.ParameterTypeString)
	put("/gone", goneImage, ssmtypes.ParameterTypeString)
	_, err := w.client("default", home).AttachImageWatermark(ctx, &ec2.AttachImageWatermarkInput{ImageId: aws.String(made["free"]), WatermarkName: aws.String("bake web 7")})
	w.fatal(err)
	w.nextSecond()
	w.copied(home, made["free"], west, "copy")
	w.image(west, "child", "bake:parent", made["one"])
	a := w.open(home, west)
	all, err := a.List(ctx, images.Query{})
	w.fatal(err)
	uses := a.Uses(ctx, all, images.Guards{Now: later, Children: true})
	for name, want := range map[string]string{
		"one":  "channel: parameter /one, a text | warning: image (child) in us-west-2 was made from it, by its tag bake:parent",
		"list": "channel: parameter list, a text", "json": "channel: parameter /json, a text", "free": "warning: image (copy) in us-west-2 was copied from it",
	} {
		if got := strings.ReplaceAll(said(uses[made[name]]), " ami-", ""); regexp.MustCompile(`image[0-9a-f]{17} `).ReplaceAllString(got, "image ") != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	broken, err := a.CheckUse(ctx)
	w.fatal(err)
	if len(broken) != 1 || broken[0].User != "parameter /gone, a text" {
		t.Errorf("broken: %v", broken)
	}
}
