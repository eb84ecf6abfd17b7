# Functions where something about them surprises.
locals {
  literal  = replace("a.b", "/./", "x") == "a.b"
  wraps    = element(["a", "b"], 3) == "b"
  emptied  = coalesce("", null, "x") == "x"
  clusters = length("é") == 1
  merged   = merge({ a = 1 }, null, { b = 2 }).b
  wide     = format("%5s|%-5s|%05d", "a", "b", 3)
  missing  = fileexists("no-such-file")
  none     = length(fileset(".", "*.none")) == 0
  lookup   = lookup({ a = "x" }, "b", "default")
  frozen   = formatdate("YYYYMMDDhhmmss", timestamp())
  legacy   = legacy_isotime("2006-01-02")
  parsed   = rfc3339_parse("2026-01-02T03:04:05Z").year
  yaml     = yamldecode("a: [1, 2]").a[1]
  typed    = convert(["b", "a"], set(string))
  subnet   = cidrsubnet("10.0.0.0/8", 8, 2)
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
