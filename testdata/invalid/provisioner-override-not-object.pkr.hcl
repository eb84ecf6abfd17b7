source "null" "a" {
  communicator = "none"
}

source "null" "b" {
  communicator = "none"
}

build {
  sources = ["source.null.a", "source.null.b"]

  provisioner "shell" {
    inline   = ["true"]
    override = { inline = ["echo"] } # ERROR: Invalid override: override.inline is not an object.
  }

  provisioner "shell" {
    inline   = ["true"]
    override = { bb = { inline = ["echo"] } } # WARNING: Unknown source in override: No source of this build has the name "bb".
  }

  provisioner "shell" {
    inline   = ["true"]
    override = { a = { inline = [["echo"]] } } # ERROR: Invalid value: Argument "inline": element 0: string required, but have tuple.
  }
}
