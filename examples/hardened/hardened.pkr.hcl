# A small security baseline on Debian 12: what is not needed goes, what stays is
# tightened, and the image is only made if every rule holds afterwards.
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

  provisioner "file" {
    source      = "${path.root}/files"
    destination = "/tmp"
  }

  provisioner "shell" {
    script          = "${path.root}/harden.sh"
    execute_command = "chmod +x {{ .Path }}; sudo {{ .Vars }} {{ .Path }}"
  }

  # Fails the bake, and with it the image, when a rule does not hold.
  provisioner "shell" {
    script          = "${path.root}/check.sh"
    execute_command = "chmod +x {{ .Path }}; sudo {{ .Vars }} {{ .Path }}"
  }

  post-processor "manifest" {
    output = "manifest.json"
  }
}
