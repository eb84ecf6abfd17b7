variable "a" {
  default = 1

  validation { # ERROR: Missing required argument
    condition = var.a > 0
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
