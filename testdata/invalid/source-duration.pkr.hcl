source "null" "a" {
  communicator = "none"
  ssh_timeout  = "five minutes" # ERROR: Invalid value
}

build {
  sources = ["source.null.a"]
}
