source "null" "a" {
  communicator = = "none" # ERROR: Invalid expression
}
