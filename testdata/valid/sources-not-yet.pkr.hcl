# Names that only data sources can tell are not complained about.

data "null" "x" {
  input = "a,b"
}

locals {
  names = split(",", data.null.x.output)
}

source "null" "a" {
  communicator = "none"
}

build {
  name = "of-${data.null.x.output}"

  dynamic "source" {
    for_each = local.names
    labels   = ["null.a"]
    content {
      name = source.value
    }
  }

  provisioner "shell" {
    only     = ["null.b"]
    inline   = ["echo ${source.name} ${build.name}"]
    override = { b = { inline = ["true"] } }
  }

  post-processor "manifest" {
    except = ["null.a"]
  }
}

build {
  source "null.a" {
    name = "c"
  }
}
