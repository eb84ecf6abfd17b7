variable "a" {
  default = 1

  validation {
    condition     = trimzzz(var.a) == "" # ERROR: Call to unknown function
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
