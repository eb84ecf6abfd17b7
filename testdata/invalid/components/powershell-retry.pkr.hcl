source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "powershell" {
    inline              = ["dir"]
    start_retry_timeout = "-1s" # ERROR: Negative duration: start_retry_timeout cannot be negative.
  }
}
