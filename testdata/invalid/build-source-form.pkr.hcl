source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null"] # ERROR: Invalid source reference
}
