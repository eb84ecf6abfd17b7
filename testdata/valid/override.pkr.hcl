# What an override sets need not be written as the argument itself would be.

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "shell" {
    inline   = ["true"]
    override = { a = { inline = "echo x" } }
  }

  provisioner "shell" {
    inline   = ["true"]
    override = { a = { inline = null } }
  }

  provisioner "shell" {
    inline   = ["true"]
    override = { a = null }
  }
}
