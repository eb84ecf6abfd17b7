source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "shell" {
    pause_before = "-5s" # ERROR: Unsuitable value
    timeout      = 5     # ERROR: Unsuitable value
    max_retries  = -1    # ERROR: Unsuitable value
    inline       = ["true"]
  }
}
