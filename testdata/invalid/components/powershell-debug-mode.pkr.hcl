source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "powershell" {
    inline     = ["dir"]
    debug_mode = 3 # ERROR: Invalid trace level: debug_mode is 3; Set-PSDebug knows the trace levels 0, 1 and 2.
  }
}
