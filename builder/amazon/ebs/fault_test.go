package ebs_test

import (
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

// TestResume: a build that is killed after provisioning goes on to the same images.
func TestResume(t *testing.T) { amazontest.Resume(t, ebs.Factory, small) }

// TestResumeEncrypted: so does one whose first image is only there to be copied.
func TestResumeEncrypted(t *testing.T) {
	amazontest.Resume(t, ebs.Factory, "ami_name = \"web\"\nami_regions = [\"eu-west-1\"]\nencrypt_boot = true\n")
}
