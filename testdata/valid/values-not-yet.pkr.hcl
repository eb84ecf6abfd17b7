# Values that exist only during a build can be of any use in expressions.
source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "shell" {
    inline = concat(
      [for p in ["a", "b"] : "${p}-${build.Host}"],
      build.Port == 22 ? ["ssh"] : [],
      [jsonencode({ user = build.User }), try(build.NoSuchValue, "fallback"), format("%s:%d", build.Host, build.Port)],
    )
  }

  post-processor "manifest" {
    output = "${build.ID}/${lower(build.PackerRunUUID)}.json"
  }
}
