source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  dynamic "provisioner" { # ERROR: Missing required argument: The argument "labels"
    for_each = ["a"]
    content {
      inline = ["true"]
    }
  }
}
