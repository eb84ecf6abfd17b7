variable "a" {
  default     = "x"
  descripton = "y" # ERROR: Unsupported argument
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
