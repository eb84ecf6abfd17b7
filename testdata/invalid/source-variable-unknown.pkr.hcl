source "null" "a" {
  communicator = var.comm # ERROR: Unknown name
}

build {
  sources = ["source.null.a"]
}
