source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  source_ami_filter { # ERROR: No filters: Set filters in source_ami_filter, at least for the name.
    owners      = ["136693071363"]
    most_recent = true
  }
}

build {
  sources = ["amazon-ebs.a"]
}
