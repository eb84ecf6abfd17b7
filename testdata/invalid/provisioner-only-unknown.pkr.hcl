source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline = ["true"]
    only   = ["null.b"] # WARNING: Unknown source in only
  }
}
