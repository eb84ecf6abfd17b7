# Rules that the values of variables meet.
variable "size" {
  type    = number
  default = 3

  validation {
    condition     = var.size > 0 && var.size < 10
    error_message = "1 to 9 are possible."
  }

  validation {
    condition     = contains([for n in range(10) : n], var.size)
    error_message = "Is it a digit?"
  }
}

variable "names" {
  type    = list(string)
  default = ["a"]

  validation {
    condition     = alltrue([for n in var.names : can(regex("^[a-z]+$", n))])
    error_message = "ÜBER: lower-case letters only!"
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
