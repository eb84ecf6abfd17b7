source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]

  post-processor "manifest" {
    max_retries = 2 # ERROR: Unsupported argument
  }
}
