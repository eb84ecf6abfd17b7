variable "a" {
  default = 1
}

variable "a" { # ERROR: Duplicate variable
  default = 2
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
