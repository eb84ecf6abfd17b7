source "null" "a" {
  communicator = "none"
}

build {
  name    = "web"
  sources = ["null.a"]

  provisioner "shell" {
    name         = "on ${build.ID}" # ERROR: Unknown name: There is no value build.NAME with the name "ID" here.
    pause_before = source.name      # ERROR: Unknown variable
    inline       = ["true"]
  }
}
