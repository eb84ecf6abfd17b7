source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shel" { # ERROR: Unknown provisioner: There is no provisioner of type "shel". Did you mean "shell"?
    inline = ["true"]
  }
}
