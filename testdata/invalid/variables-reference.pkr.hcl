variables {
  a = "x"
  b = local.c # ERROR: Default is not constant
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
