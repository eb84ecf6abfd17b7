ami_name = "web"
subnet_filter {
  filters   = { vpc-id = "*" }
  most_free = true
}
availability_zone = "us-east-1d"
