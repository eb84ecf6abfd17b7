variable "base" { # ERROR: Unset variable
  type = string
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.${var.base}"]
}
