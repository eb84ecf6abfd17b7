source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  dynamic "provisoner" { # ERROR: Unsupported block type
    for_each = ["a"]
    content {
    }
  }
}
