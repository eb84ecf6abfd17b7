source "file" "a" {
  target  = "x"
  content = "y"

  dynamic "owner" { # ERROR: Unsupported block type
    for_each = ["a"]
    content {
    }
  }
}

build {
  sources = ["source.file.a"]
}
