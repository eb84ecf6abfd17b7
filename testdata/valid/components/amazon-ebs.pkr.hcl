# Options of amazon-ebs that public templates have, in the forms that they have.
variable "volumes" {
  type = list(object({
    name = string
    size = optional(number, 8)
  }))
  default = [{ name = "/dev/sdf" }, { name = "/dev/sdg", size = 20 }]
}

variable "role" {
  type    = string
  default = ""
}

data "amazon-ami" "base" {
  filters = {
    name                = "debian-12-amd64-*"
    root-device-type    = "ebs"
    virtualization-type = "hvm"
  }
  owners      = ["136693071363"]
  most_recent = true
  region      = "us-east-1"
}

locals {
  stamp = regex_replace(timestamp(), "[- TZ:]", "")
  tags = merge({
    Base    = "{{ .SourceAMIName }}"
    Release = "{{ .SourceAMITags.Release }}"
  }, { Built = formatdate("YYYY-MM-DD", timestamp()) })
}

source "amazon-ebs" "base" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  source_ami    = data.amazon-ami.base.id
  encrypt_boot  = "true"

  dynamic "assume_role" {
    for_each = var.role == "" ? [] : [var.role]
    content {
      role_arn = assume_role.value
    }
  }

  dynamic "launch_block_device_mappings" {
    for_each = var.volumes
    iterator = volume
    content {
      device_name           = volume.value.name
      volume_size           = volume.value.size
      volume_type           = "gp3"
      delete_on_termination = true
    }
  }

  dynamic "tag" {
    for_each = local.tags
    content {
      key   = tag.key
      value = tag.value
    }
  }

  run_tags = { Name = "${source.type}.${source.name}" }
}

source "amazon-ebs" "plain" {
  region          = "us-east-1"
  instance_type   = "t3.micro"
  ssh_username    = "admin"
  ami_name        = "web-{{timestamp}}"
  ami_description = "from {{ .SourceAMI }} in {{ .BuildRegion }}"
  tags            = local.tags

  source_ami_filter {
    filters     = data.amazon-ami.base.tags
    owners      = ["self", 136693071363]
    most_recent = true
  }

  subnet_filter {
    filters = { "tag:tier" : "public" }
    random  = true
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  aws_polling {
    delay_seconds = "10"
    max_attempts  = 60
  }
}

build {
  name = "web"

  source "amazon-ebs.base" {
    name     = "stable"
    ami_name = "web-${local.stamp}"
  }

  source "sources.amazon-ebs.base" {
    name     = "candidate"
    ami_name = "web-rc-${local.stamp}"
  }

  sources = ["source.amazon-ebs.plain"]

  provisioner "shell" {
    execute_command  = "{{ .Vars }} sudo -E sh -c '{{ .Path }}'"
    environment_vars = ["HOST=${build.Host}", "SOURCE=${build.SourceAMI}"]
    inline           = ["echo ${build.SourceAMIName} ${build.ID}"]
    pause_before     = "10s"
    max_retries      = 2
    only             = ["amazon-ebs.stable", "amazon-ebs.plain"]
    override = {
      stable = { inline = ["echo stable"] }
    }
  }

  error-cleanup-provisioner "shell-local" {
    inline = ["echo ${build.ID} failed"]
  }

  post-processors {
    post-processor "manifest" {
      output      = "manifest.json"
      strip_path  = true
      custom_data = { base = build.SourceAMI }
    }
  }
}
