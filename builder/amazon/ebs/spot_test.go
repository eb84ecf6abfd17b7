package ebs_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"bake/cloud/ec2"
)

const spot = `
ami_name = "spot"
run_tags = { team = "a" }
run_volume_tags = { disk = "b" }
spot_tags = { request = "c" }
fleet_tags = { fleet = "{{ .BuildRegion }}" }
spot_price = "0.05"
spot_allocation_strategy = "price-capacity-optimized"
spot_instance_types = ["m5.large", "t3.micro"]
user_data = "#!/bin/sh"
launch_block_device_mappings {
  device_name  = "/dev/sdb"
  virtual_name = "ephemeral0"
}
launch_block_device_mappings {
  device_name = "/dev/sdc"
  no_device   = true
}
`

// onSpot is a source block like plain's that asks for a spot instance.
func onSpot(more string) string {
	return strings.Replace(plain(spot+more), `instance_type = "t3.micro"`, "", 1)
}

func count(calls []call, action string) (n int) {
	for _, c := range calls {
		if c.Action == action {
			n++
		}
	}
	return n
}

// find returns the call of an action.
func find(t *testing.T, calls []call, action string) map[string]string {
	t.Helper()
	i := slices.IndexFunc(calls, func(c call) bool { return c.Action == action })
	if i < 0 {
		t.Fatalf("there is no %s", action)
	}
	return calls[i].Params
}

// wantParams demands parameters of a call, among others.
func wantParams(t *testing.T, got map[string]string, want map[string]string) {
	t.Helper()
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s is %q, want %q", k, got[k], v)
		}
	}
}

// TestSpot bakes on a spot instance of the second type, since the first has no
// capacity.
func TestSpot(t *testing.T) {
	w := newWorld(t, ec2.Fault{Action: "CreateFleet", InstanceType: "m5.large", Code: "InsufficientInstanceCapacity"})
	images := w.MustBuild(t, onSpot(""))
	if len(images) != 1 {
		t.Fatalf("the images are %v", images)
	}
	wantParams(t, find(t, w.Calls, "CreateFleet"), map[string]string{
		"Type": "instant", "TargetCapacitySpecification.TotalTargetCapacity": "1", "TargetCapacitySpecification.DefaultTargetCapacityType": "spot",
		"SpotOptions.AllocationStrategy":                   "price-capacity-optimized",
		"LaunchTemplateConfigs.1.Overrides.1.InstanceType": "m5.large", "LaunchTemplateConfigs.1.Overrides.2.InstanceType": "t3.micro",
		"LaunchTemplateConfigs.1.LaunchTemplateSpecification.Version": "1",
		"TagSpecification.1.ResourceType":                             "fleet", "TagSpecification.1.Tag.1.Key": "fleet", "TagSpecification.1.Tag.1.Value": region,
	})
	template := find(t, w.Calls, "CreateLaunchTemplate")
	wantParams(t, template, map[string]string{
		"LaunchTemplateData.InstanceMarketOptions.MarketType":           "spot",
		"LaunchTemplateData.InstanceMarketOptions.SpotOptions.MaxPrice": "0.05",
		"LaunchTemplateData.UserData":                                   "IyEvYmluL3No", "LaunchTemplateData.BlockDeviceMapping.1.VirtualName": "ephemeral0",
		"LaunchTemplateData.TagSpecification.1.ResourceType": "instance", "LaunchTemplateData.TagSpecification.1.Tag.1.Key": "bake:build",
		"LaunchTemplateData.InstanceInitiatedShutdownBehavior": "stop",
	})
	if !strings.HasPrefix(template["LaunchTemplateName"], "packer-fleet-launch-template-") {
		t.Errorf("the template is called %s", template["LaunchTemplateName"])
	}
	if n := count(w.Calls, "CreateTags"); n > 0 {
		t.Errorf("%d times was tagged what had its tags from the start", n)
	}
	var tagged []string
	for i := range 4 {
		spec := fmt.Sprintf("LaunchTemplateData.TagSpecification.%d.", i+1)
		tagged = append(tagged, template[spec+"ResourceType"]+" "+template[spec+"Tag.3.Key"]+"="+template[spec+"Tag.3.Value"])
	}
	if want := []string{"instance team=a", "network-interface team=a", "volume disk=b", "spot-instances-request request=c"}; !slices.Equal(tagged, want) {
		t.Errorf("the launch template tags %q, want %q", tagged, want)
	}
	for _, never := range []string{"StopInstances", "RunInstances"} {
		if n := count(w.Calls, never); n > 0 {
			t.Errorf("there are %d calls of %s", n, never)
		}
	}
	if count(w.Calls, "DeleteLaunchTemplate") != 1 {
		t.Error("the launch template was not deleted")
	}
}

// TestSpotWithoutCapacity: all zones are tried repeatedly, and the error lists them.
func TestSpotElsewhere(t *testing.T) {
	w := newWorld(t, ec2.Fault{Action: "CreateFleet", Calls: 12, Code: "InsufficientInstanceCapacity"})
	b := w.Bake(t)
	_, err := b.Build(t.Context(), onSpot(""))
	if err == nil {
		err = b.Scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := count(w.Calls, "CreateFleet"); n != 2 {
		t.Errorf("%d fleets were asked for, want 2", n)
	}
	if !strings.Contains(b.Said(), "There is no spot capacity for m5.large, t3.micro at the moment") {
		t.Errorf("it said:\n%s", b.Said())
	}
}

// TestSpotSwept: the remains of a killed spot launch are found by the ledger.
func TestSpotSwept(t *testing.T) {
	for _, failing := range []string{"CreateFleet", "CreateImage"} {
		w := newWorld(t, ec2.Fault{Action: failing, Code: "Unavailable", Status: 400})
		b := w.Bake(t)
		if _, err := b.Build(t.Context(), onSpot("")); err == nil {
			t.Fatal("it did not fail")
		}
		if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
			t.Error(err)
		}
		if left := w.Holdings(); len(left) > 0 {
			t.Errorf("%s: left behind: %v", failing, left)
		}
		if count(w.Calls, "DeleteLaunchTemplate") != 1 {
			t.Errorf("%s: the launch template was not deleted", failing)
		}
	}
}

// TestCapacity launches in another zone when there is no capacity in the first,
// unless the template names one.
func TestCapacity(t *testing.T) {
	fault := ec2.Fault{Action: "RunInstances", Calls: 1, Code: "InsufficientInstanceCapacity"}
	filter := "subnet_filter {\n filters = { default-for-az = \"true\", availability-zone = \"us-east-1a,us-east-1b\" }\n most_free = true\n}\n"
	w := newWorld(t, fault)
	b := w.Bake(t)
	_, err := b.Build(t.Context(), plain("ami_name = \"capacity\"\n"+filter))
	if err == nil {
		err = b.Scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.Said(), "There is no capacity for t3.micro in us-east-1") || !strings.Contains(b.Said(), "; trying us-east-1") {
		t.Errorf("it said:\n%s", b.Said())
	}

	w = newWorld(t, fault)
	b = w.Bake(t)
	_, err = b.Build(t.Context(), plain("ami_name = \"capacity\"\navailability_zone = \"us-east-1a\""))
	if err == nil || !strings.Contains(err.Error(), "InsufficientInstanceCapacity") {
		t.Errorf("with a zone of its own: %v", err)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
}

// TestSpotProfile: the dry run that waits for a temporary profile uses the type that the
// fleet tries first: without a type, EC2 uses m1.small, which has no CPU credits.
func TestSpotProfile(t *testing.T) {
	w := newWorld(t)
	body := strings.Replace(plain(withPolicy), `instance_type = "t3.micro"`, `spot_price = "auto"
spot_instance_types = ["t3.small", "t3.micro"]`, 1)
	w.MustBuild(t, body)
	wantParams(t, find(t, w.Calls, "RunInstances"), map[string]string{
		"DryRun": "true", "InstanceType": "t3.small", "CreditSpecification.CpuCredits": "standard",
	})
	if n := count(w.Calls, "CreateFleet"); n != 1 {
		t.Errorf("%d fleets, want one", n)
	}
}
