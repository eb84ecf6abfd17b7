source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "powershell" {
    inline            = ["dir"]
    elevated_password = "secret" # ERROR: Missing elevated_user: elevated_password needs elevated_user, the user whose password it is.
  }
}
