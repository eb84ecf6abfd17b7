module "network" { # ERROR: Unsupported block type
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
