variable "who" {
  type    = string
  default = "world"
}

variable "home" {
  type    = string
  default = "${env("HOME")}/x"
}

locals {
  loud = upper(var.who)
}

source "null" "test" {
  communicator = "none"
}

build {
  sources = ["source.null.test"]

  provisioner "shell-local" {
    inline = [
      "echo \"hello ${var.who}\"",
      "echo $HOME $${HOME} %%{x}",
      "echo '${local.loud} ${var.home}'",
    ]
    environment_vars = ["DIR=${path.root}", "CWD=${path.cwd}"]
    pause_before     = "1s"
    max_retries      = "2"
    timeout          = "5m"
  }

  post-processors {
    post-processor "shell-local" {
      inline = ["true"]
    }

    post-processor "manifest" {}
  }

  post-processor "checksum" {
    checksum_types      = ["sha256", "md5"]
    keep_input_artifact = true
  }
}
