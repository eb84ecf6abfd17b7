locals {
  name  = "x"
  title = upper(local.nam) # ERROR: Unknown name: There is no local value "nam" here. Did you mean "name"?
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
