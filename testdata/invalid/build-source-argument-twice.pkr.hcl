source "null" "a" {
  communicator = "none"
}

build {
  source "null.a" {
    communicator = "ssh" # ERROR: Duplicate argument
  }
}
