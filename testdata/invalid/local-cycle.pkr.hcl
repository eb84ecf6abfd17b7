locals {
  a = local.b
  b = "${local.c}!"
  c = [local.a] # ERROR: Circular reference: The value of local.a depends on itself:\n  local.a -> local.b -> local.c -> local.a
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
