communicator = "none"
ami_name = "web"
vpc_filter {
  filters = { isDefault = "true" }
}
security_group_filter {
  filters = { group-name = "default" }
}
