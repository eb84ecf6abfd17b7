variable "n" {
  type    = number
  default = "1e100000000" # ERROR: Invalid value for variable
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
