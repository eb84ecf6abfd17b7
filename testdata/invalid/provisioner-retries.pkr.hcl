source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline      = ["true"]
    max_retries = -1 # ERROR: Invalid value
  }
}
