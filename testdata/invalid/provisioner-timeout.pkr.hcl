source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline  = ["true"]
    timeout = 10 # ERROR: Invalid value
  }
}
