variable "x" {
  default = "abc"

  validation {
    condition     = length(var.x) > 2
    error_message = <<-EOT
      The value of x must be longer than two letters.
    EOT
  }

  validation {
    condition     = length(var.x) > 1
    error_message = " Is x longer than one letter? 	"
  }
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]
}
