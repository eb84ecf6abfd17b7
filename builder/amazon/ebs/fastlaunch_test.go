package ebs_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"bake/builder/amazon"
	"bake/builder/amazon/ebs"
)

func TestFastLaunchOptions(t *testing.T) {
	for _, tt := range []struct{ option, summary, at string }{
		{"template_id = \"lt-1\"\n template_name = \"n\"", "Conflicting arguments", `"n"`},
		{"enable_fast_launch = true\n max_parallel_launches = 5", "Too few launches", `5`},
		{"target_resource_count = -1", "Too few snapshots", `-1`},
		{"template_version = 2", "Version without a launch template", `2`},
		{"template_id = \"lt-1\"\n template_version = -2", "Negative number", `-2`},
		{"region_launch_templates {\n region = \"eu-west-1\"\n}", "Region without an image", `"eu-west-1"`},
		{"region_launch_templates {\n region = \"us-east-1\"\n template_version = 1\n}", "Version without a launch template", `1`},
		{"region_launch_templates {\n region = \"us-east-1\"\n template_id = \"lt-1\"\n template_name = \"n\"\n}", "Conflicting arguments", `"n"`},
		{"region_launch_templates {\n region = \"us-east-1\"\n}\nregion_launch_templates {\n region = \"us-east-1\"\n}", "Duplicate region", `"us-east-1"`},
	} {
		body := plain("ami_name = \"web\"\nfast_launch {\n " + tt.option + "\n}")
		wantDiagnostic(t, ebs.Factory(amazon.Cloud{}).Check(input(body)), body, tt.summary, tt.at)
	}
}

// TestFastLaunch checks the requests to EC2. The embedded EC2, which has no Windows,
// does not implement them.
func TestFastLaunch(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	polls := map[string]int{}
	w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		mu.Lock()
		defer mu.Unlock()
		switch c.Action {
		case "DescribeLaunchTemplates":
			fmt.Fprintf(rw, `<DescribeLaunchTemplatesResponse><launchTemplates><item><launchTemplateId>lt-0123456789abcdef0</launchTemplateId><latestVersionNumber>7</latestVersionNumber></item></launchTemplates></DescribeLaunchTemplatesResponse>`)
		case "EnableFastLaunch":
			fmt.Fprintf(rw, `<EnableFastLaunchResponse><imageId>%s</imageId><state>enabling</state></EnableFastLaunchResponse>`, c.Params["ImageId"])
		case "DescribeFastLaunchImages":
			state := "enabling"
			if polls[c.Region]++; polls[c.Region] > 2 {
				state = "enabled"
			}
			fmt.Fprintf(rw, `<DescribeFastLaunchImagesResponse><fastLaunchImageSet><item><imageId>%s</imageId><state>%s</state></item></fastLaunchImageSet></DescribeFastLaunchImagesResponse>`, c.Params["ImageId.1"], state)
		default:
			mu.Unlock()
			serve(rw)
			mu.Lock()
		}
	}
	images := w.MustBuild(t, plain(`
ami_name    = "web"
ami_regions = ["eu-west-1", "us-west-2"]
fast_launch {
  template_name         = "windows"
  max_parallel_launches = 8
  target_resource_count = 3
  region_launch_templates {
    region           = "eu-west-1"
    template_id      = "lt-0123456789abcdef1"
    template_version = 2
  }
  region_launch_templates {
    region             = "us-west-2"
    enable_fast_launch = false
  }
}
`))
	if len(images) != 3 {
		t.Errorf("images = %v, want three", images)
	}
	asked := map[string]map[string]string{}
	for _, c := range w.Calls {
		if c.Action == "EnableFastLaunch" {
			asked[c.Region] = c.Params
		}
	}
	if len(asked) != 2 {
		t.Fatalf("enabled in %v", asked)
	}
	for in, version := range map[string]string{region: "7", "eu-west-1": "2"} {
		p := asked[in]
		for k, want := range map[string]string{"ImageId": images[in], "ResourceType": "snapshot", "MaxParallelLaunches": "8", "SnapshotConfiguration.TargetResourceCount": "3", "LaunchTemplate.LaunchTemplateId": "lt-0123456789abcdef0", "LaunchTemplate.Version": version} {
			if p[k] != want {
				t.Errorf("%s: %s is %q, want %q", in, k, p[k], want)
			}
		}
		if polls[in] != 3 {
			t.Errorf("%s: asked %d times whether it is enabled", in, polls[in])
		}
	}
}

// TestFastLaunchOfLinux fails as on EC2, and leaves nothing.
func TestFastLaunchOfLinux(t *testing.T) {
	w := newWorld(t)
	b := w.Bake(t)
	_, err := b.Build(t.Context(), plain("ami_name = \"web\"\nfast_launch {\n enable_fast_launch = true\n}"))
	if err == nil || !strings.Contains(err.Error(), "Windows") {
		t.Error(err)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Error(err)
	}
	if left := w.Holdings(); len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}
