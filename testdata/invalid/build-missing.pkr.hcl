variable "a" {
  default = 1
}
# FILE ERROR: No build block
