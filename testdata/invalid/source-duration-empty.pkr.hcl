variable "patience" {
  default = ""
}

source "null" "a" {
  communicator = "none"
  ssh_timeout  = var.patience # ERROR: Invalid value: Argument "ssh_timeout": "" is not a duration; leave the argument out
}

build {
  sources = ["source.null.a"]
}
