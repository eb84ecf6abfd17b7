variable "empty" {
  default = ""
}

variable "nothing" {
  default = null
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "shell" {
    inline            = ["true"]
    name              = var.empty
    pause_before      = var.empty
    timeout           = ""
    max_retries       = var.empty
    continue_on_error = var.empty
  }

  provisioner "shell" {
    inline            = ["true"]
    name              = var.nothing
    only              = var.nothing
    except            = var.nothing
    override          = var.nothing
    pause_before      = var.nothing
    timeout           = null
    max_retries       = var.nothing
    continue_on_error = var.nothing
  }

  provisioner "shell" {
    inline       = ["true"]
    pause_before = "0s"
    timeout      = 0
    max_retries  = 0
  }

  post-processor "manifest" {
    name                = var.empty
    keep_input_artifact = var.empty
  }
}
