source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "windows-restart" {
    restart_timeout = "-1s" # ERROR: Invalid timeout: restart_timeout must be greater than 0.
  }
}
