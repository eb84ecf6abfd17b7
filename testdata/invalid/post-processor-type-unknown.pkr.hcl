source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  post-processor "manifst" { # ERROR: Unknown post-processor: There is no post-processor of type "manifst". Did you mean "manifest"?
  }
}
