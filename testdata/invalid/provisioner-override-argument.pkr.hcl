source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline = ["true"]
    override = { a = { inlin = ["false"] } } # ERROR: Unsupported argument
  }
}
