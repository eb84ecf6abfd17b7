variable "size" {
  type    = number
  default = 3 # ERROR: Invalid value for variable: The size must be at least 8.

  validation {
    condition     = var.size >= 8
    error_message = "The size must be at least 8."
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
