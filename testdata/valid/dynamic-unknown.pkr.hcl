# How many blocks there are depends on a data source, which validation does not run.
data "null" "names" {
  input = "a,b"
}

locals {
  names = split(",", data.null.names.output)
}

source "null" "a" {
  communicator = data.null.names.output
}

build {
  sources = ["null.a"]

  dynamic "provisioner" {
    for_each = local.names
    labels   = ["shell"]
    content {
      inline = ["echo ${provisioner.value}"]
      only   = ["null.${provisioner.value}"]
    }
  }
}
