variable "1st" { # ERROR: Invalid name
  default = 1
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
