source "null" "web" {
  communicator = "none"
}

build {
  sources = [
    "source.null.web",
    "source.null.wbe", # ERROR: Unknown source: There is no source "null.wbe". Did you mean "null.web"?
  ]
}
