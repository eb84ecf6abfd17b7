source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline = ["echo {{ user `name` }}"] # ERROR: Invalid {{ }} template: Argument "inline"
  }

  provisioner "shell" {
    inline = ["echo {{ build `ID` }}"] # ERROR: Invalid {{ }} template: Argument "inline"
  }
}
