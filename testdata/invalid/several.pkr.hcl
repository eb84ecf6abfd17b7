variable "unset" { # ERROR: Unset variable
}

variable "count" {
  type    = number
  default = "many" # ERROR: Invalid value for variable
}

locals {
  a = var.absent # ERROR: Unknown name: There is no variable "absent" here.
  b = var.count + 1
}

source "null" "a" {
  communicator = "none"
  ssh_timeout  = "soon" # ERROR: Invalid value
}

source "vsphere-iso" "b" { # ERROR: Unknown builder
  name = local.a
}

build {
  name    = var.unset
  sources = ["source.null.a", "vsphere-iso.b", "null.c"] # ERROR: Unknown source

  provisioner "shell" {
    inlin = ["true"] # ERROR: Unsupported argument
  }

  provisioner "shel" { # ERROR: Unknown provisioner
    inline = [local.a, local.b, build.Anything]
  }

  post-processor "manifest" {
    output = build.ID
  }
}
