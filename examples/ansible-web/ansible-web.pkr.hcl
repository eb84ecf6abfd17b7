# A web server by Ansible: launch Debian 12, run a playbook with a role on it, make an
# AMI. Ansible (ansible-core) has to be installed here; it connects to the machine by
# its own address, key and host key.
#
#   bake build -local examples/ansible-web      on this machine, without an account
#   bake build examples/ansible-web             on AWS, with the credentials you have

packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.2.8"
    }
    ansible = {
      source  = "github.com/hashicorp/ansible"
      version = ">= 1.1.0"
    }
  }
}

variable "region" {
  type        = string
  default     = "us-east-1"
  description = "Where the image is built."
}

variable "page" {
  type        = string
  default     = "Hello from Ansible"
  description = "What the server says."
}

source "amazon-ebs" "web" {
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

  ami_name = "ansible-web-${formatdate("YYYYMMDD-hhmmss", timestamp())}"
}

build {
  sources = ["source.amazon-ebs.web"]

  provisioner "ansible" {
    playbook_file   = "${path.root}/site.yml"
    groups          = ["web"]
    extra_arguments = ["--extra-vars", jsonencode({ web_page = var.page })]
  }
}
