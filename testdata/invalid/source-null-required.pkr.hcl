source "file" "a" {
  target  = null # ERROR: Missing required argument
  content = "x"
}

build {
  sources = ["source.file.a"]
}
