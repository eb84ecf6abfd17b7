variable "a" {
  default = 1

  validation {
    condition     = var.a > 0
    error_message = "must be more." # ERROR: Invalid validation message
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
