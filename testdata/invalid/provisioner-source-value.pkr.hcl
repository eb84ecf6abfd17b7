source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline = ["echo ${source.label}"] # ERROR: Unknown name
  }
}
