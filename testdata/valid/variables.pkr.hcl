# Types of variables, and what is converted to them.
variable "untyped" {
  default = ["a", 1, true]
}

variable "nothing" {
  type    = string
  default = null
}

variable "anything" {
  type    = any
  default = {}
}

variable "mixed" {
  type    = map(string)
  default = { a = 1, b = true, c = null }
}

variable "unique" {
  type    = set(string)
  default = ["x", "x", "y"]
}

variable "pair" {
  type    = tuple([string, number])
  default = [1, "2"]
}

variable "nested" {
  type = object({
    name  = optional(string, "web")
    disks = optional(list(object({ size = optional(number, 8), kind = string })), [])
    tags  = optional(map(string))
  })
  default = { disks = [{ kind = "gp3" }], extra = "dropped" }
}

variable "from-environment" {
  default = "${env("NO_SUCH_VARIABLE")}-suffix"
}

locals {
  a = var.untyped[1] + 1
  b = var.nothing == null ? "none" : var.nothing
  c = length(var.unique) == 2
  d = "${var.pair[0]}-${var.pair[1] + 1}"
  e = var.nested.disks[0].size + 1
  f = var.nested.tags == null
  g = upper(var.from-environment)
  h = try(var.not_declared, "fallback")
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
