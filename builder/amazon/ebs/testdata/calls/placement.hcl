ami_name = "web"
availability_zone = "us-east-1c"
placement {
  tenancy = "dedicated"
}
