locals {
  a = bcrypt("x", 31)                      # ERROR: Invalid function argument
  b = format("%123456789s", "x")           # ERROR: Invalid function argument
  c = setproduct(range(1000), range(1000)) # ERROR: Error in function call
  d = lookup({}, "a")                      # ERROR: Not enough function arguments
  e = coalesce("", null)                   # ERROR: Error in function call
  f = file("no-such-file")                 # ERROR: Invalid function argument
  g = regex("(", "a")                      # ERROR: Invalid function argument
  h = templatefile("no-such-file", {})     # ERROR: Invalid function argument
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
