package launch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/wait"
	"bake/internal/delay"
	"bake/step"
)

// Spec describes the launch of a machine, in addition to the options.
type Spec struct {
	Image      types.Image
	Continues  bool // Image was made from a machine of an earlier build that was launched with the same settings; this machine continues that one
	Place      Place
	Key        Key
	Groups     Groups
	Profile    string            // name of an instance profile; empty: none
	Tags       map[string]string // of the instance and its network interface
	VolumeTags map[string]string
	SpotTags   map[string]string // of the spot request
	FleetTags  map[string]string
}

// Run launches the machine and waits until it runs.
func (l *Launcher) Run(ctx context.Context, spec Spec) (types.Instance, error) {
	userData, err := l.userData()
	if err != nil {
		return types.Instance{}, l.blameUserData(err)
	}
	in := l.request(spec, userData)
	if l.MakesProfile() && spec.Profile != "" {
		err := step.Run(ctx, l.Scope, "wait for EC2 to see the instance profile", func(ctx context.Context) error {
			return l.awaitProfile(ctx, in)
		})
		if err != nil {
			return types.Instance{}, err
		}
	}
	in.ClientToken = &l.Owner.ID
	want := l.Owner.Resource(ownership.Instance, l.Owner.ID, l.Session.Region, ownership.WithKeep, strings.Join(l.Keep, ","))
	if l.Spot() {
		id, err := l.launchSpot(ctx, in, spec, want)
		if err != nil {
			return types.Instance{}, err
		}
		return l.awaitRunning(ctx, id)
	}
	id, err := ownership.Acquire(ctx, l.Scope, "launch the instance", want, func(ctx context.Context) (string, string, error) {
		out, err := l.launchSomewhere(ctx, in, spec.Place)
		if err != nil {
			return "", "", l.blameRun(err)
		}
		id := aws.ToString(out.Instances[0].InstanceId)
		l.Scope.Say(ctx, "Instance %s (%s)", id, l.InstanceType)
		return id, id, nil
	})
	if err != nil {
		return types.Instance{}, err
	}
	return l.awaitRunning(ctx, id)
}

func (l *Launcher) awaitRunning(ctx context.Context, id string) (types.Instance, error) {
	return step.Do(ctx, l.Scope, "wait for the instance to run", func(ctx context.Context) (types.Instance, error) {
		return l.awaitState(ctx, id, types.InstanceStateNameRunning)
	})
}

// runInstances retries until the instance profile is visible to both IAM and EC2.
func (l *Launcher) runInstances(ctx context.Context, in *ec2.RunInstancesInput) (*ec2.RunInstancesOutput, error) {
	again := func(_ int, err error) bool { return fresh(err) && l.IAMInstanceProfile == "" }
	return persist(ctx, again, func(int) (*ec2.RunInstancesOutput, error) { return access.Finish(ctx, l.client().RunInstances, in) })
}

// tries is the maximum number of calls by persist, which take about two minutes.
const tries = 11

// persist calls do with the number of the attempt, from 1, until do succeeds, again
// returns false for its error, or the maximum is reached. The pauses between the calls
// grow.
func persist[T any](ctx context.Context, again func(try int, err error) bool, do func(try int) (T, error)) (T, error) {
	pause := 200 * time.Millisecond
	for try := 1; ; try++ {
		v, err := do(try)
		if err == nil || try == tries || !again(try, err) {
			return v, err
		}
		if err := delay.For(ctx, pause); err != nil {
			return v, err
		}
		pause = min(2*pause, 30*time.Second)
	}
}

// instanceTags returns the tags of the instance. They include [ownership.ContinuesTag] if it
// continues an earlier machine and has room for another tag.
func (s Spec) instanceTags() map[string]string {
	if !s.Continues || len(s.Tags)+ownership.Tagged >= ownership.MostTags { // there is no room for the tag
		return s.Tags
	}
	tags := map[string]string{ownership.ContinuesTag: "true"}
	maps.Copy(tags, s.Tags)
	return tags
}

func (l *Launcher) request(spec Spec, userData string) *ec2.RunInstancesInput {
	one := int32(1)
	in := &ec2.RunInstancesInput{
		ImageId:                           spec.Image.ImageId,
		InstanceType:                      types.InstanceType(l.types()[0]),
		MinCount:                          &one,
		MaxCount:                          &one,
		KeyName:                           access.Optional(spec.Key.Name),
		UserData:                          access.Optional(userData),
		EbsOptimized:                      &l.EBSOptimized,
		EnclaveOptions:                    &types.EnclaveOptionsRequest{Enabled: &l.EnableNitroEnclave},
		InstanceInitiatedShutdownBehavior: l.shutdownBehavior(),
		CapacityReservationSpecification:  l.capacity(),
		MetadataOptions:                   l.metadata(),
		Placement:                         l.placement(spec.Place.zone),
		BlockDeviceMappings:               device.EC2(l.Devices),
	}
	if l.InstanceStore { // EC2 refuses it: such an instance cannot stop
		in.InstanceInitiatedShutdownBehavior = ""
	}
	in.TagSpecifications = slices.Concat(l.Owner.Specs(spec.instanceTags(), types.ResourceTypeInstance),
		l.Owner.Specs(spec.Tags, types.ResourceTypeNetworkInterface), l.Owner.Specs(spec.VolumeTags, types.ResourceTypeVolume))
	if l.NoEphemeral {
		for c := 'a'; c <= 'z'; c++ {
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, types.BlockDeviceMapping{
				DeviceName: new("xvdc" + string(c)), NoDevice: new(""),
			})
		}
	}
	if spec.Profile != "" {
		in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: &spec.Profile}
	}
	if !slices.ContainsFunc(l.types(), func(t string) bool { return !burstable.Get().MatchString(t) }) {
		credits := "standard"
		if l.unlimited() {
			credits = "unlimited"
		}
		in.CreditSpecification = &types.CreditSpecificationRequest{CpuCredits: &credits}
	}
	for i := range l.LicenseSpecifications {
		in.LicenseSpecifications = append(in.LicenseSpecifications, types.LicenseConfigurationRequest{
			LicenseConfigurationArn: &l.LicenseSpecifications[i].LicenseConfigurationRequest.LicenseConfigurationARN,
		})
	}
	if spec.Place.subnet != "" && l.AssociatePublicIPAddress != nil {
		in.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{{
			DeviceIndex:              new(int32(0)),
			SubnetId:                 &spec.Place.subnet,
			Groups:                   spec.Groups.ids,
			AssociatePublicIpAddress: l.AssociatePublicIPAddress,
			DeleteOnTermination:      new(true),
		}}
	} else {
		in.SubnetId, in.SecurityGroupIds = access.Optional(spec.Place.subnet), spec.Groups.ids
	}
	return in
}

func (l *Launcher) capacity() *types.CapacityReservationSpecification {
	if l.CapacityReservationID+l.CapacityReservationGroupARN == "" {
		return &types.CapacityReservationSpecification{
			CapacityReservationPreference: types.CapacityReservationPreference(l.CapacityReservationPreference),
		}
	}
	return &types.CapacityReservationSpecification{CapacityReservationTarget: &types.CapacityReservationTarget{
		CapacityReservationId:               access.Optional(l.CapacityReservationID),
		CapacityReservationResourceGroupArn: access.Optional(l.CapacityReservationGroupARN),
	}}
}

// metadata returns the metadata options for the API. It returns nil for http_endpoint =
// "disabled", as Packer does: a machine without the metadata service does not get the key
// for logging in.
func (l *Launcher) metadata() *types.InstanceMetadataOptionsRequest {
	m := MetadataOptions{}
	m.SetDefaults()
	if l.MetadataOptions != nil {
		m = *l.MetadataOptions
	}
	if m.HTTPEndpoint == "disabled" {
		return nil
	}
	req := &types.InstanceMetadataOptionsRequest{
		HttpEndpoint: types.InstanceMetadataEndpointState(m.HTTPEndpoint),
		HttpTokens:   types.HttpTokensState(m.HTTPTokens),
	}
	if m.HTTPPutResponseHopLimit != 0 {
		req.HttpPutResponseHopLimit = new(int32(m.HTTPPutResponseHopLimit)) // validated
	}
	if m.InstanceMetadataTags == "enabled" {
		req.InstanceMetadataTags = types.InstanceMetadataTagsStateEnabled
	}
	return req
}

func (l *Launcher) placement(zone string) *types.Placement {
	p := types.Placement{AvailabilityZone: access.Optional(zone), Tenancy: types.Tenancy(l.Tenancy)}
	if o := l.Placement; o != nil {
		p.HostResourceGroupArn, p.HostId = access.Optional(o.HostResourceGroupARN), access.Optional(o.HostID)
		if o.Tenancy != "" {
			p.Tenancy = types.Tenancy(o.Tenancy)
		}
	}
	if p == (types.Placement{}) {
		return nil
	}
	return &p
}

func (l *Launcher) blameUserData(err error) error {
	return l.Src.Errorf(&l.UserDataFile, "User data cannot be read", "%s.", err)
}

// blameRun returns an error that points to the option that RunInstances refused.
func (l *Launcher) blameRun(err error) error {
	var e *access.Error
	if !errors.As(err, &e) {
		return err
	}
	blame := func(ptr any, summary string) error {
		return access.Blame(err, l.Src.Errorf(ptr, summary, "%s.", e))
	}
	switch {
	case strings.HasPrefix(e.Code, "InvalidSubnet") && l.SubnetID != "":
		return blame(&l.SubnetID, "The subnet cannot be used")
	case e.Code == "VPCIdNotSpecified":
		return blame(&l.SubnetID, "No subnet, and no default VPC")
	case strings.HasPrefix(e.Code, "InvalidCapacityReservation") && l.CapacityReservationID != "":
		return blame(&l.CapacityReservationID, "The capacity reservation cannot be used")
	case strings.HasPrefix(e.Code, "InvalidHostID") && l.Placement != nil:
		return blame(&l.Placement.HostID, "The host cannot be used")
	case strings.HasPrefix(e.Code, "InvalidKeyPair") && l.SSHKeyPairName != "":
		return blame(&l.SSHKeyPairName, "No such key pair")
	case strings.Contains(e.Message, "iamInstanceProfile") && l.IAMInstanceProfile != "":
		return blame(&l.IAMInstanceProfile, "The instance profile cannot be used")
	case strings.Contains(strings.ReplaceAll(strings.ToLower(e.Message), " ", ""), "instancetype"):
		return blame(&l.InstanceType, "The instance type cannot be used")
	case strings.Contains(strings.ToLower(e.Message), "availability zone") && l.AvailabilityZone != "":
		return blame(&l.AvailabilityZone, "The availability zone cannot be used")
	case len(l.Devices) > 0 && aboutVolumes(e):
		return blame(l.guilty(e.Message), "The volumes cannot be created")
	}
	return err
}

// aboutVolumes reports whether RunInstances has refused a block device mapping.
func aboutVolumes(e *access.Error) bool {
	text := strings.ToLower(e.Code + " " + e.Message)
	return slices.ContainsFunc([]string{"blockdevice", "volume", "snapshot", "iops", "throughput"}, func(word string) bool { return strings.Contains(text, word) })
}

// guilty returns the option of a mapping whose value the message names, or else the first
// mapping's device.
func (l *Launcher) guilty(message string) any {
	for _, d := range l.Devices {
		for _, option := range []*string{&d.DeviceName, &d.VolumeType, &d.SnapshotID, &d.KMSKeyID} {
			if *option != "" && slices.Contains(quoted(message), *option) {
				return option
			}
		}
	}
	return &l.Devices[0].DeviceName
}

// quoted returns the words of a message without the punctuation around them.
func quoted(message string) []string {
	words := strings.Fields(message)
	for i, w := range words {
		words[i] = strings.Trim(w, `"'()[].,:;`)
	}
	return words
}

// Stop stops the instance, unless a provisioner does that, and waits until it has stopped.
// It does not stop a spot instance, which EC2 reboots to make an image, or one with an
// instance store root.
func (l *Launcher) Stop(ctx context.Context, id string) error {
	if l.Spot() || l.InstanceStore {
		return nil
	}
	return step.Run(ctx, l.Scope, "stop the instance", func(ctx context.Context) error {
		if !l.DisableStopInstance {
			if _, err := access.Call(ctx, l.client().StopInstances, &ec2.StopInstancesInput{InstanceIds: []string{id}}); err != nil {
				return err
			}
		}
		_, err := l.awaitState(ctx, id, types.InstanceStateNameStopped)
		return err
	})
}

// awaitState waits until the instance is in a state. It returns an error if the instance
// has terminated instead.
func (l *Launcher) awaitState(ctx context.Context, id string, want types.InstanceStateName) (types.Instance, error) {
	usual := wait.Span{Soonest: 4 * time.Second, Latest: 30 * time.Second}
	if want == types.InstanceStateNameStopped {
		usual.Latest = time.Minute
	}
	return access.Watch(l.Session, l.Session.Region).Instances.Until(ctx, wait.Wait[types.Instance]{
		ID: id, What: fmt.Sprintf("instance %s to be %s", id, want), Watch: l.Session.Watch(15*time.Second, 10*time.Minute),
		Kind: string(want), Usual: usual,
		Voice: l.Session.Voice(ctx),
		Judge: func(i types.Instance, found bool) (bool, error) {
			if !found || i.State == nil {
				return false, nil // not visible in all of EC2 yet
			}
			state := i.State.Name
			if state == types.InstanceStateNameShuttingDown && i.StateReason == nil && want != types.InstanceStateNameTerminated {
				return false, nil // EC2 may report the reason only after termination
			}
			ended := []types.InstanceStateName{types.InstanceStateNameShuttingDown, types.InstanceStateNameTerminated}
			if want == types.InstanceStateNameRunning {
				ended = append(ended, types.InstanceStateNameStopping, types.InstanceStateNameStopped)
			}
			if slices.Contains(ended, state) {
				return false, fmt.Errorf("instance %s is %s instead of %s: %s", id, state, want, reason(i))
			}
			return state == want, nil
		},
	})
}

func reason(i types.Instance) string {
	if text := access.StateReason(i.StateReason); text != "" {
		return text
	}
	if t := aws.ToString(i.StateTransitionReason); t != "" {
		return t
	}
	return "EC2 gave no reason"
}

// ModifyInstance sets the attributes that an image inherits from its instance.
func (l *Launcher) ModifyInstance(ctx context.Context, id string, sriov bool, ena *bool) error {
	if !sriov && ena == nil {
		return nil
	}
	return step.Run(ctx, l.Scope, "modify the instance", func(ctx context.Context) error {
		if sriov {
			_, err := access.Call(ctx, l.client().ModifyInstanceAttribute, &ec2.ModifyInstanceAttributeInput{
				InstanceId: &id, SriovNetSupport: &types.AttributeValue{Value: new("simple")},
			})
			if err != nil {
				return err
			}
		}
		if ena != nil {
			_, err := access.Call(ctx, l.client().ModifyInstanceAttribute, &ec2.ModifyInstanceAttributeInput{
				InstanceId: &id, EnaSupport: &types.AttributeBooleanValue{Value: ena},
			})
			return err
		}
		return nil
	})
}
