data "null" "x" {
  input = "null.a"
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = [data.null.x.output] # WARNING: Not known yet: A source of this build is known only after data sources are read
}

build {
  sources = split(",", data.null.x.output) # WARNING: Not known yet: The sources of this build are known only after data sources are read
}

build {
  dynamic "source" {
    for_each = split(",", data.null.x.output)
    labels   = [source.value] # WARNING: Not known yet: This label is known only after data sources are read
    content {}
  }
}

build {
  sources = ["null.a", null] # ERROR: Null value: The name of a source cannot be null.
}
