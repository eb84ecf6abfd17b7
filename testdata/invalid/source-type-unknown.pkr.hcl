source "amazon-esb" "a" { # ERROR: Unknown builder: There is no builder of type "amazon-esb".
}

build {
  sources = ["source.amazon-esb.a"]
}
