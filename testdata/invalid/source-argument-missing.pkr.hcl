source "file" "a" { # ERROR: Missing required argument
  content = "x"
}

build {
  sources = ["source.file.a"]
}
