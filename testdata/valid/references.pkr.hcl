# How a build refers to sources.
source "null" "a" {
  communicator = "none"
}

source "null" "not a name.1" { # counts only where it is referred to
}

source null unquoted {
  communicator = "none"
}

build {
  sources = ["null.a", "source.null.a", "sources.null.unquoted", "null.a"]

  source "null.a" {
    name        = "renamed"
    ssh_timeout = "1m"
  }

  source "source.null.unquoted" {
  }
}

build {
  name    = upper("computed ${packer.version}")
  sources = [for n in ["a", "unquoted"] : "null.${n}"]
}
