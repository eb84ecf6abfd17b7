source "null" "a" {
  comunicator = "none" # ERROR: Unsupported argument: An argument named "comunicator" is not expected here. Did you mean "communicator"?
}

build {
  sources = ["source.null.a"]
}
