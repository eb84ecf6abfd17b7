package ebs_test

import (
	"strings"
	"testing"

	"bake/builder/amazon/ebs"
	"bake/builder/amazon/internal/amazontest"
)

// small is a source block that makes one image and one copy of it.
const small = `
ami_name       = "web"
ami_regions    = ["eu-west-1"]
ami_users      = ["123456789013"]
tags           = { Name = "web" }
run_tags       = { Base = "{{ .SourceAMI }}" }
`

// TestFaults wants an image and a snapshot in each of two regions, or nothing.
func TestFaults(t *testing.T) { amazontest.Faults(t, ebs.Factory, small, 4) }

// TestResume: a build that is killed after provisioning is resumed and makes the same
// images.
func TestResume(t *testing.T) { amazontest.Resume(t, ebs.Factory, small) }

// TestResumeWithoutCopy: a copy that was deregistered meanwhile is an error.
func TestResumeWithoutCopy(t *testing.T) {
	err := amazontest.Deregistered(t, ebs.Factory, "ami_name = \"web\"\nami_regions = [\"eu-west-1\"]\n", "eu-west-1")
	if err == nil || !strings.Contains(err.Error(), "in eu-west-1 was deregistered") {
		t.Error(err)
	}
}

// TestResumeEncrypted is TestResume for a build whose first image is temporary.
func TestResumeEncrypted(t *testing.T) {
	amazontest.Resume(t, ebs.Factory, "ami_name = \"web\"\nami_regions = [\"eu-west-1\"]\nencrypt_boot = true\n")
}
