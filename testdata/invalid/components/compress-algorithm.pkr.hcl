source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  post-processor "compress" {
    algorithm = "zoo" # ERROR: Unknown algorithm: "zoo" is not one of gz, bgzf, bzip2, xz, lz4.
  }
}
