source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "shell" {
    pause_before = "-5s" # ERROR: Invalid value
    timeout      = 5     # ERROR: Invalid value
    max_retries  = -1    # ERROR: Invalid value
    inline       = ["true"]
  }
}
