source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  provisioner "shell" {
    inline = ["true"]
    only   = ["null.a"]
    except = ["null.a"] # ERROR: Both only and except
  }
}
