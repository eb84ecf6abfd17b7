source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  post-processor "artifice" {
    files = [] # ERROR: No files: files cannot be empty.
  }
}
