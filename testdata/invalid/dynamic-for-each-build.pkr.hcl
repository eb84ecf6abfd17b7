source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  dynamic "provisioner" {
    for_each = [build.ID] # ERROR: Unknown variable
    labels   = ["shell"]
    content {
      inline = ["true"]
    }
  }
}
