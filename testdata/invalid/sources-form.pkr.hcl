source "null" "a" {
  communicator = "none"
}

build {
  sources = "null.a" # ERROR: Invalid value
}

build { # ERROR: Build without a source
  sources = []
}

build {
  sources = [source.null.a] # ERROR: Unknown variable
}
