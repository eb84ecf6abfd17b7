/* Every kind of block that a template can have, and most of what can be in one. */

packer {
  required_version = ">= 1.7.0, < 2.0.0"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1.2"
    }
  }
}

variables {
  legacy = "value"
}

variable "name" {
  type        = string
  default     = "web"
  description = "What the image is called."

  validation {
    condition     = can(regex("^[a-z]+$", var.name))
    error_message = "The name must consist of lower-case letters."
  }

  validation {
    condition     = length(var.name) < 20
    error_message = "Is that not too long?"
  }
}

variable "token" {
  default   = env("NO_SUCH_VARIABLE")
  sensitive = true
}

variable "disks" {
  type = list(object({
    size = number
    kind = optional(string, "gp3")
  }))
  default = [{ size = 8 }, { size = 20, kind = "io2" }]
}

variable "anything" {
  type    = any
  default = null
}

data "null" "base" {
  input = "image-of-${var.name}"
}

data "null" "derived" {
  input = "${data.null.base.output}-${local.suffix}"
}

locals {
  suffix  = join("-", [for d in var.disks : d.kind if d.size > 10])
  by_kind = { for d in var.disks : d.kind => d.size... }
  base    = upper(data.null.derived.output)
  script  = <<-EOT
    echo ${local.suffix}
    %{~for kind, sizes in local.by_kind}
    echo ${kind} ${sum(sizes)}
    %{~endfor}
    echo $${HOME}
  EOT
}

local "secret" {
  sensitive  = true
  expression = "secret-0 ${var.token}"
}

source "null" "first" {
  communicator = "none"
}

source "file" "second" {
  target  = "${path.root}/${source.name}-${source.type}-${packer.version}.txt"
  content = local.base
}

communicator "ssh" "ignored" {
  anything = 1
}

build {
  name        = "all-${var.name}"
  description = "Everything at once"
  sources     = ["source.null.first", "file.second"]

  source "null.first" {
    name        = "renamed"
    ssh_timeout = "5m"
  }

  dynamic "source" {
    for_each = convert(keys(local.by_kind), set(string))
    labels   = ["null.first"]
    content {
      name = "dynamic-${source.value}"
    }
  }

  provisioner "shell" {
    name         = "named"
    inline       = ["echo ${build.name} ${build.ID} {{ .Vars }}", local.script, "echo {{`{{`}}"]
    only         = ["null.first", "null.renamed"]
    pause_before = "10s"
    timeout      = "5m"
    max_retries  = 2
  }

  provisioner "shell" {
    inline            = ["echo ${build.Port + 1}"]
    except            = ["file.second"]
    continue_on_error = true
    override = {
      renamed = {
        inline = ["echo renamed ${build.Host}"]
      }
    }
  }

  dynamic "provisioner" {
    for_each = var.disks
    iterator = disk
    labels   = ["shell"]
    content {
      inline = ["echo disk ${disk.key}: ${disk.value.size} of ${source.name}"]
    }
  }

  error-cleanup-provisioner "shell" {
    inline = ["journalctl"]
  }

  post-processor "manifest" {
    name                = "list"
    output              = "${path.cwd}/${build.name}.json"
    keep_input_artifact = true
  }

  post-processors {
    post-processor "manifest" {
      except = ["null.first"]
    }
    post-processor "manifest" {}
  }
}

build {
  sources = ["null.first"]
}
