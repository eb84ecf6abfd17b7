source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  post-processors {
    provisioner "shell" { # ERROR: Unsupported block type
    }
  }
}
