source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  placement {
    host_id                 = "h-1" # ERROR: Conflicting arguments: Set either host_resource_group_arn or host_id.
    host_resource_group_arn = "arn:aws:resource-groups:us-east-1:123456789012:group/g"
  }

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
