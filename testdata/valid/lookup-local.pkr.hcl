# What looks something up in all locals does not depend on itself.

data "null" "x" {
  input = "a"
}

data "null" "y" {
  input = length(data)
}

locals {
  a    = "1"
  b    = lookup(local, "a", "none")
  c    = length(local)
  of_b = "${local.b} ${local.c}"
  x    = lookup(data.null, "x", {})
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "shell" {
    inline = ["echo ${local.b} ${local.of_b} ${length(local)}"]
  }
}
