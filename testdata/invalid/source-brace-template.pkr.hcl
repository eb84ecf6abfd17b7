source "null" "a" {
  communicator = "{{ nonee }}" # ERROR: Invalid {{ }} template
}

build {
  sources = ["source.null.a"]
}
