data "null" "a" {
  input  = "x"
  output = "y" # ERROR: Unsupported argument
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
