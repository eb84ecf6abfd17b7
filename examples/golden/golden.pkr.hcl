# A base image of Debian 12 with a security baseline, and a web server made from it. What is
# asked of the images is in golden.bake.hcl, which bake reads and Packer does not.
#
#   bake plan -local examples/golden
#   bake build -local examples/golden

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

variable "base_ami" {
  type        = string
  default     = ""
  description = "What the web server is made from. golden.bake.hcl gives it the base image."
}

variable "page" {
  type    = string
  default = "<h1>Hello from a golden image</h1>"
}

variable "copy_to" {
  type        = list(string)
  default     = ["eu-west-1"]
  description = "Regions that get a copy of the web server."
}

variable "share_with" {
  type        = list(string)
  default     = []
  description = "Accounts that may launch the web server."
}

variable "signing_key" {
  type        = string
  default     = "signing.pem"
  description = "Signs the attestations: a private key in PEM form, or awskms:///alias/NAME."
}

locals {
  stamp = formatdate("YYYYMMDD-hhmmss", timestamp())
}

source "amazon-ebs" "base" {
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

  ami_name        = "base-${local.stamp}"
  ami_description = "Debian 12 with a security baseline"
  tags = {
    Name = "base"
  }
}

source "amazon-ebs" "web" {
  region        = var.region
  instance_type = "t3.micro"
  ssh_username  = "admin"
  source_ami    = var.base_ami

  metadata_options {
    http_tokens = "required"
  }
  imds_support = "v2.0"

  ami_name        = "web-${local.stamp}"
  ami_description = "A web server on the base image"
  tags = {
    Name = "web"
  }
}

build {
  name    = "base"
  sources = ["source.amazon-ebs.base"]

  provisioner "shell" {
    script          = "${path.root}/scripts/update.sh"
    execute_command = "chmod +x {{ .Path }}; sudo env {{ .Vars }} {{ .Path }}"
  }
}

build {
  name    = "web"
  sources = ["source.amazon-ebs.web"]

  provisioner "shell" {
    script           = "${path.root}/scripts/web.sh"
    environment_vars = ["PAGE=${var.page}"]
    execute_command  = "chmod +x {{ .Path }}; sudo env {{ .Vars }} {{ .Path }}"
  }
}
