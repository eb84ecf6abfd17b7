source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "powershell" {
    inline                  = ["dir"]
    elevated_user           = "SYSTEM"
    elevated_env_var_format = "x" # ERROR: Unusable format: "x" must contain two %s, the first for the name and the second for the value.
  }
}
