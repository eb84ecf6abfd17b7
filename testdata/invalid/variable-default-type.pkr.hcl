variable "a" {
  type    = number
  default = "many" # ERROR: Invalid value for variable
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
