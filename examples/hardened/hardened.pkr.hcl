# Debian 12 with a security baseline: see hardened.bake.hcl, which bake reads and Packer
# does not.
#
#   bake build -local examples/hardened

packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.2.8"
    }
  }
}

variable "region" {
  type    = string
  default = "us-east-1"
}

locals {
  stamp = formatdate("YYYYMMDD-hhmmss", timestamp())
}

source "amazon-ebs" "hardened" {
  region        = var.region
  instance_type = "t3.micro"
  ssh_username  = "admin"

  source_ami_filter {
    owners      = ["136693071363"] # Debian
    most_recent = true
    filters = {
      name                = "debian-12-amd64-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  metadata_options {
    http_tokens = "required"
  }
  imds_support = "v2.0"

  ami_name        = "hardened-${local.stamp}"
  ami_description = "Debian 12 with a security baseline"

  tags = {
    Name     = "hardened"
    Baseline = "1"
  }
}

build {
  sources = ["source.amazon-ebs.hardened"]

  # What the image is for comes here. Updates are installed first, so that what follows
  # builds on them.
  provisioner "shell" {
    inline = [
      "sudo apt-get update -q",
      "sudo DEBIAN_FRONTEND=noninteractive apt-get dist-upgrade -q -y",
      "sudo apt-get clean",
    ]
  }

  post-processor "manifest" {
    output = "manifest.json"
  }
}
