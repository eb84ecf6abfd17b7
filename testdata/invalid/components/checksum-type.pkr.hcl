source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  post-processor "checksum" {
    checksum_types = ["crc32"] # ERROR: Unknown checksum: "crc32" is not one of md5, sha1, sha224, sha256, sha384 and sha512.
  }
}
