source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "powershell" {
    inline           = ["dir"]
    execution_policy = "any" # ERROR: Invalid value: Argument "execution_policy": "any" is not one of "bypass", "allsigned", "default", "remotesigned", "restricted", "undefined", "unrestricted", "none".
  }
}
