# Blocks without much effect, and blocks that may be repeated.
packer {
  required_version = "~> 1.7"
}

packer {
  required_version = ">= 1.9.0, < 2.0.0"

  required_plugins {
    windows-update = {
      version = "0.14.3"
      source  = "github.com/rgl/windows-update"
    }
  }

  required_plugins {
    other = {
      version = "v1.0.1"
      source  = "example.com/a/b/c/Parallels"
    }
  }
}

variables {
  a = "x"
  b = ["y"]
}

variables {
  c = 1
}

locals {
}

local "secret" {
  expression = "not-a-word-${var.a}-${var.b[0]}"
  sensitive  = true
}

communicator "ssh" "any" {
  anything = "goes"
}

source "null" "a" {
  communicator = "none"
}

build {
  description = "from ${var.a}"
  sources     = ["source.null.a"]

  from "anything" {
  }
}
