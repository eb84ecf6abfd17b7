variable "a" {
  default = 1

  validation {
    condition     = var.a > 0 ? null : true # ERROR: Invalid validation result
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
