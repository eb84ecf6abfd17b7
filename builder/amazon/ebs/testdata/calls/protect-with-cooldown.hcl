ami_name = "web"
deregistration_protection {
  with_cooldown = true
}
