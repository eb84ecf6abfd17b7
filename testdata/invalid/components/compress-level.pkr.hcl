source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  post-processor "compress" {
    compression_level = -2 # ERROR: Invalid level: compression_level must be a number from 1 to 9, or 0 for the default.
  }
}
