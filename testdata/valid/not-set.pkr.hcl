# What is empty or 0 is not set, as what is null is not. Only a duration cannot be empty.

variable "empty" {
  default = ""
}

source "null" "a" {
  communicator = var.empty
  ssh_timeout  = null
}

source "null" "b" {
  communicator = null
  ssh_timeout  = "0s"
}

build {
  sources = ["null.a", "null.b"]

  post-processor "manifest" {
    output = var.empty
  }
}
