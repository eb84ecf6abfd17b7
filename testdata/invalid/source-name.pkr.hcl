source "null" "a.b" {
  communicator = "none"
}

source "null" "c d" {
  communicator = "none"
}

build {
  sources = [
    "source.null.a.b", # ERROR: Invalid source reference
    "null.c d",        # ERROR: Invalid source reference
  ]
}
