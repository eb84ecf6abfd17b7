source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "powershell" { # ERROR: No script: Set one of inline, script and scripts: there is nothing to run.
    execution_policy = "bypass"
  }
}
