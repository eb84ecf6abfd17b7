# build.name may be used in what a build itself reads of a provisioner and of a
# post-processor.

source "null" "a" {
  communicator = "none"
}

build {
  name    = "web"
  sources = ["null.a"]

  provisioner "shell" {
    name              = "step of ${build.name}"
    only              = ["null.${build.name == "web" ? "a" : "b"}"]
    pause_before      = "${length(build.name)}s"
    timeout           = "${length(build.name)}m"
    max_retries       = length(build.name)
    continue_on_error = build.name == "web"
    override          = { a = { inline = ["echo ${build.name}"] } }
    inline            = ["true"]
  }

  error-cleanup-provisioner "shell" {
    inline = ["true"]
  }

  post-processor "manifest" {
    name                = "of ${build.name}"
    except              = build.name == "web" ? [] : ["null.a"]
    keep_input_artifact = build.name == "web"
  }

  post-processors {
    post-processor "manifest" {
      only = build.name == "web" ? ["null.a"] : []
    }
  }
}
