variable "a" {
  type    = "string" # ERROR: Invalid type specification
  default = "x"
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
