source "null" "a" {
  communicator = "none"
  ssh_timeout  = "five minutes" # ERROR: Unsuitable value
}

build {
  sources = ["source.null.a"]
}
