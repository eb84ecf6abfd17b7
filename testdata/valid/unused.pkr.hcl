# Sources that no build uses are not looked at, whatever is in them.
source "vsphere-iso" "unused" {
  no_such_argument = var.not_declared
}

source "null" "used" {
  communicator = "none"
}

build {
  sources = ["null.used"]
}
