source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline = ["echo {{ .Path"] # ERROR: Invalid {{ }} template
  }
}
