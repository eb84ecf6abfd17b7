//go:build linux

package main

import (
	"fmt"
	"strings"
)

// subject is a template to test.
type subject struct {
	name, template string
}

// subjects are the templates, which have short time limits. Their provisioners record
// that they ran.
var subjects = []subject{{"plain", one(`
  instance_type = "t3.micro"
  ami_name = "tortured"
  tags     = { use = "torture" }
`)}, {"copies", one(`
  instance_type = "t3.micro"
  ami_name      = "tortured"
  ami_regions   = ["eu-west-1", "us-west-2"]
  ami_users     = ["210987654321"]
  snapshot_users = ["210987654321"]
  encrypt_boot  = true
  kms_key_id    = "alias/torture"
  region_kms_key_ids = { "eu-west-1" = "alias/torture", "us-west-2" = "alias/torture" }
  tags          = { use = "torture" }
  snapshot_tags = { of = "torture" }
  launch_block_device_mappings {
    device_name           = "/dev/sdf"
    volume_size           = 1
    volume_type           = "gp3"
    delete_on_termination = true
  }
`)}, {"spot", one(`
  ami_name            = "tortured"
  spot_price          = "auto"
  spot_instance_types = ["t3.micro", "t3.small"]
  spot_tags           = { use = "torture" }
  temporary_iam_instance_profile_policy_document {
    Version = "2012-10-17"
    Statement {
      Effect   = "Allow"
      Action   = ["s3:GetObject"]
      Resource = ["*"]
    }
  }
`)}, {"surrogate", oneOf("amazon-ebssurrogate", `
  instance_type           = "t3.micro"
  ami_name                = "tortured"
  ami_virtualization_type = "hvm"
  ami_users               = ["210987654321"]
  tags                    = { use = "torture" }
  launch_block_device_mappings {
    device_name           = "/dev/sdf"
    volume_size           = 1
    volume_type           = "gp3"
    delete_on_termination = true
  }
  ami_root_device {
    source_device_name    = "/dev/sdf"
    device_name           = "/dev/xvda"
    volume_size           = 1
    volume_type           = "gp3"
    delete_on_termination = true
  }
`)}}

// one is a template with one source, which does not wait for long.
func one(options string) string { return oneOf("amazon-ebs", options) }

// oneOf is like one, for another builder.
func oneOf(builder, options string) string {
	return source(builder, "web", `
  ssh_timeout = "20s"
  max_retries = 4
  aws_polling {
    delay_seconds = 1
    max_attempts  = 15
  }
`+options) + build(builder, "web") + `
  post-processor "manifest" {}
}
`
}

// many returns a template with n sources, whose images are named after it.
func many(name string, n int) string {
	var text strings.Builder
	var names []string
	for i := range n {
		names = append(names, fmt.Sprint("web", i))
		text.WriteString(source("amazon-ebs", names[i], fmt.Sprintf("instance_type = %q\n ami_name = %q\n", "t3.micro", fmt.Sprint(name, "-", i))))
	}
	return text.String() + build("amazon-ebs", names...) + "}\n"
}

func source(builder, name, options string) string {
	return fmt.Sprintf(`
source %q %q {
  region                  = "us-east-1"
  ssh_username            = "admin"
  temporary_key_pair_type = "ed25519"
  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
  %s
}
`, builder, name, options)
}

// build returns the beginning of the block of these sources of a builder.
func build(builder string, names ...string) string {
	source := "source." + builder + "."
	return `
build {
  sources = ["` + source + strings.Join(names, `", "`+source) + `"]
  provisioner "shell" {
    remote_folder = "."
    inline        = ["echo first >>$HOME/provisioned"]
  }
  provisioner "shell" {
    remote_folder = "."
    inline        = ["echo second >>$HOME/provisioned"]
  }
`
}
