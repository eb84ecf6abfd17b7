ami_name = "web"
deregistration_protection {
  enabled = true
}
