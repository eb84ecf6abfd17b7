dynamic "source" { # ERROR: Unsupported block type
  for_each = ["a"]
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
