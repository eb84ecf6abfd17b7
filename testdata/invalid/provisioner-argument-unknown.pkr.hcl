source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inlin = ["true"] # ERROR: Unsupported argument
  }
}
