source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "powershell" {
    inline         = ["dir"]
    env_var_format = "$env:%s" # ERROR: Unusable format: "$env:%s" must contain two %s, the first for the name and the second for the value.
  }
}
