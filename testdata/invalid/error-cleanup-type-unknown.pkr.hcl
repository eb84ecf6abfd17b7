source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  error-cleanup-provisioner "shall" { # ERROR: Unknown provisioner
  }
}
