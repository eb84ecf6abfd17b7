locals {
  a = try(local.absent, "b")     # ERROR: Unknown name: There is no local value "absent" here.
  b = can(data.null.none.output) # ERROR: Unknown name: There is no data source of type "null" here.
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
