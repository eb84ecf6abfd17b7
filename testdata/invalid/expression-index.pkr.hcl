variable "s" {
  type    = set(string)
  default = ["x"]
}

locals {
  a = [1][2]      # ERROR: Invalid index
  b = var.s[0]    # ERROR: Invalid index
  c = { x = 1 }.y # ERROR: Unsupported attribute
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
