# A misspelt name is one error: what is missing for that reason is not mentioned.

local "a" {
  expresion = 1 # ERROR: Unsupported argument: An argument named "expresion" is not expected here. Did you mean "expression"?
}

source "file" "a" {
  contnt = "x" # ERROR: Unsupported argument: An argument named "contnt" is not expected here. Did you mean "content"?
  targt  = "y" # ERROR: Unsupported argument: An argument named "targt" is not expected here. Did you mean "target"?
}

build {
  sources = ["file.a"]
}
