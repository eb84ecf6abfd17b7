variable "a" { # ERROR: Unset variable
  type = string
}

variable "b" { # ERROR: Unset variable
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
