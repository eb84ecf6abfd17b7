source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline       = ["true"]
    pause_before = "soon" # ERROR: Invalid value
  }
}
