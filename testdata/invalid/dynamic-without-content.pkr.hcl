source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  dynamic "provisioner" { # ERROR: Missing dynamic content block
    for_each = ["a"]
    labels   = ["shell"]
  }
}
