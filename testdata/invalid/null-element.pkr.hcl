variable "nothing" {
  default = null
}

source "null" "a" {
}

build {
  sources = ["null.a"]

  provisioner "shell" {
    inline = ["true", var.nothing] # ERROR: Null value: Argument "inline": the element with index 1 is null. Omit it or set a value.
  }
}
