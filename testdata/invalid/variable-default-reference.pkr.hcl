variable "a" {
  default = "x"
}

variable "b" {
  default = "${var.a}y" # ERROR: Default is not constant
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
