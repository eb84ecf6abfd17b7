source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline = ["echo ${build.Hots}"] # ERROR: Unknown name: There is no value build.NAME with the name "Hots" here. Did you mean "Host"?
  }
}
