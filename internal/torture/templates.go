//go:build linux

package main

// subject is a template that is put to the torture.
type subject struct {
	name, template string
}

// subjects are the templates, which have short limits. Their provisioners write down
// that they ran.
var subjects = []subject{{"plain", source(`
  instance_type = "t3.micro"
  ami_name = "tortured"
  tags     = { use = "torture" }
`)}, {"copies", source(`
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
`)}, {"spot", source(`
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
`)}}

func source(options string) string {
	return `
source "amazon-ebs" "web" {
  region                  = "us-east-1"
  ssh_username            = "admin"
  ssh_timeout             = "20s"
  temporary_key_pair_type = "ed25519"
  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
  aws_polling {
    delay_seconds = 1
    max_attempts  = 15
  }
` + options + `}
build {
  sources = ["source.amazon-ebs.web"]
  provisioner "shell" {
    remote_folder = "."
    inline        = ["echo first >>$HOME/provisioned"]
  }
  provisioner "shell" {
    remote_folder = "."
    inline        = ["echo second >>$HOME/provisioned"]
  }
  post-processor "manifest" {}
}
`
}
