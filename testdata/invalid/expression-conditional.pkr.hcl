locals {
  a = true ? ["x"] : "y"               # ERROR: Inconsistent conditional result types
  b = { for s in ["a", "a"] : s => 1 } # ERROR: Duplicate object key
  c = "x" + 1                          # ERROR: Invalid operand
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
