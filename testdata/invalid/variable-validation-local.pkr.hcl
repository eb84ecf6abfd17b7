variable "a" {
  default = 1

  validation {
    condition     = var.a > local.least # ERROR: Invalid validation condition
    error_message = "A must be more."
  }
}

variable "b" {
  default = 1
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
