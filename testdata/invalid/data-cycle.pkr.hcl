data "null" "a" {
  input = local.b
}

locals {
  b = data.null.a.output # ERROR: Circular reference: The value of data.null.a depends on itself:\n  data.null.a -> local.b -> data.null.a
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
