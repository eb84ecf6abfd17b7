variable "a" {
  default   = "x"
  sensitive = "maybe" # ERROR: Unsuitable value type
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
