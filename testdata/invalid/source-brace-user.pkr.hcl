source "null" "a" {
  communicator = "{{ user `x` }}" # ERROR: Invalid {{ }} template
}

build {
  sources = ["source.null.a"]
}
