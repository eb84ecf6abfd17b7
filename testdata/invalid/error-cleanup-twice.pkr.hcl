source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  error-cleanup-provisioner "shell" {
    inline = ["true"]
  }

  error-cleanup-provisioner "shell" { # ERROR: Duplicate error-cleanup-provisioner
    inline = ["true"]
  }
}
