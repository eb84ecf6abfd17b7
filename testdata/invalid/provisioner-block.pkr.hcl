source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline = ["true"]
    only { # ERROR: Unsupported block type
    }
  }
}
