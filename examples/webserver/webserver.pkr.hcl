# A web server as an image: launch Debian 12, install the server, write a page,
# make an AMI, copy it to two more regions and share it.
#
#   bake build -local examples/webserver      on this machine, without an account
#   bake build examples/webserver             on AWS, with the credentials you have

packer {
  required_version = ">= 1.9.0"
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.2.8"
    }
  }
}

variable "region" {
  type        = string
  default     = "us-east-1"
  description = "Where the image is built."
}

variable "copy_to" {
  type        = list(string)
  default     = ["eu-west-1", "ap-southeast-1"]
  description = "Regions that get a copy."
}

variable "share_with" {
  type        = list(string)
  default     = ["987654321098"]
  description = "Accounts that may launch the image."

  validation {
    condition     = alltrue([for a in var.share_with : can(regex("^[0-9]{12}$", a))])
    error_message = "An account id has 12 digits."
  }
}

variable "page" {
  type        = string
  default     = "<h1>Hello from My Custom AMI!</h1>"
  description = "What the server says."
}

locals {
  stamp = formatdate("YYYYMMDD-hhmmss", timestamp())
}

source "amazon-ebs" "webserver" {
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

  ami_name        = "webserver-${local.stamp}"
  ami_description = "A web server that says hello, made from {{ .SourceAMIName }}"
  ami_regions     = var.copy_to
  ami_users       = var.share_with

  tags = {
    Name = "webserver"
    Base = "{{ .SourceAMI }}"
  }
}

build {
  name    = "example"
  sources = ["source.amazon-ebs.webserver"]

  provisioner "shell" {
    script           = "${path.root}/install.sh"
    environment_vars = ["PAGE=${var.page}"]
    execute_command  = "chmod +x {{ .Path }}; sudo env {{ .Vars }} {{ .Path }}"
  }

  post-processor "manifest" {
    output = "manifest.json"
  }
}
