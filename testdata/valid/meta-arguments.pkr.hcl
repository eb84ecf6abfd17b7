# Every meta-argument, in the types that are converted too.
locals {
  wait = "5s"
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "shell" {
    name              = "first"
    only              = ["null.a"]
    except            = []
    pause_before      = local.wait
    timeout           = "1h30m"
    max_retries       = "3"
    continue_on_error = "true"
    inline            = ["true"]
    override = {
      a     = { inline = ["echo ${local.wait}"] }
    }
  }

  provisioner "shell" {
    except   = null
    inline   = [1, true]
    override = null
  }

  error-cleanup-provisioner "shell" {
    timeout = "10s"
    inline  = ["true"]
  }

  post-processor "manifest" {
    name                = "list"
    only                = ["null.a"]
    keep_input_artifact = false
  }

  post-processors {
  }
}
