variable "a" {
  type    = object({ x = string, y = string })
  default = { x = "1" } # ERROR: Invalid value for variable: The value of variable "a" does not fit
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
