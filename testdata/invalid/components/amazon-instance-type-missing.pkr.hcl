source "amazon-ebs" "a" { # ERROR: No instance type: Set instance_type or, for a spot instance, spot_instance_types.
  region       = "us-east-1"
  ssh_username = "admin"
  ami_name     = "web"

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
