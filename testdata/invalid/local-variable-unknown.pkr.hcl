variable "region" {
  default = "x"
}

locals {
  a = var.regoin # ERROR: Unknown name: There is no variable "regoin" here. Did you mean "region"?
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
