source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  dynamic "provisioner" {
    for_each = local.none # ERROR: Unknown name
    labels   = ["shell"]
    content {
      inline = ["true"]
    }
  }
}
