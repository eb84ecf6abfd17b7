# Dynamic blocks in a build, with all their arguments.
locals {
  machines = { one = "1", two = "2" }
}

source "null" "a" {
  communicator = "none"
}

build {
  dynamic "source" {
    for_each = local.machines
    labels   = ["null.a"]
    content {
      name        = source.key
      ssh_timeout = "${source.value}m"
    }
  }

  dynamic "provisioner" {
    for_each = [for name, n in local.machines : name if n != "0"]
    iterator = machine
    labels   = ["shell"]
    content {
      name   = "for ${machine.value}"
      only   = ["null.${machine.value}"]
      inline = ["echo ${machine.value} ${build.Host} ${source.name}"]
    }
  }

  dynamic "post-processor" {
    for_each = local.machines
    labels   = ["manifest"]
    content {
      output = post-processor.key
    }
  }

  dynamic "post-processors" {
    for_each = [1]
    content {
      dynamic "post-processor" {
        for_each = ["x"]
        labels   = ["manifest"]
        content {
          output = "${post-processor.value}-${post-processors.value}"
        }
      }
    }
  }

  dynamic "hcp_packer_registry" {
    for_each = []
    content {
      bucket_name = "web"
    }
  }
}
