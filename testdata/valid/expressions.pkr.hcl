# What expressions can do.
locals {
  list    = [{ n = 1 }, { n = 2 }]
  full    = local.list[*].n
  attrs   = local.list.*.n
  legacy  = local.full.0
  single  = "x" [*]
  doubled = [for i, v in local.full : v * 2 if i < 2]
  grouped = { for s in ["a", "b", "a"] : s => s... }
  tuples  = true ? ["a"] : ["b", "c"]
  objects = false ? { a = 1 } : { b = 2 }
  empty   = true ? {} : { a = 1 }
  large   = 1 / 0
  text    = <<-EOT
      indented ${upper("x")}
    less
  EOT
  loop    = <<EOT
%{for s in ["a", "b"]~}
${s}
%{endfor~}
EOT
  escaped = "$${not} %%{either} \u00e9"
  dashed  = { "a-b" = 1 }.a-b
  whole   = keys(local.grouped)
  paths   = "${path.root} ${path.cwd} ${packer.version}"
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["source.null.a"]
}
