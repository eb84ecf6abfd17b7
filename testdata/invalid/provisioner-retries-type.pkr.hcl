source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline      = ["true"]
    max_retries = "often" # ERROR: Invalid value
  }
}
