source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "windows-shell" {
    inline         = ["dir"]
    env_var_format = "set %s" # ERROR: Unusable format: "set %s" must contain two %s, the first for the name and the second for the value.
  }
}
