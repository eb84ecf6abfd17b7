data "null" "image" {
  input = "x"
}

locals {
  b = data.null.imge.output # ERROR: Unknown name: There is no data source of type "null" and name "imge" here. Did you mean "image"?
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
