variable "a" {
  type = list # ERROR: Invalid type specification
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
