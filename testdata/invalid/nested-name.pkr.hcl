variable "name" {
  default = "b"
}

source "null" "a" {
  communicator = "none"
}

build {
  source "null.a" {
    name = var.name # ERROR: Name is not constant
  }
}
