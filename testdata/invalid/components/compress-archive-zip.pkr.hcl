source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  post-processor "compress" {
    archive   = "zip"
    algorithm = "xz" # ERROR: Algorithm of a zip archive: A zip archive is compressed in its own way. Leave out algorithm, or set archive = "tar".
  }
}
