build { # ERROR: Build without a source
  name = "x"
}
