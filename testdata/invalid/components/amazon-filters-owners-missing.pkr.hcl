source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  source_ami_filter { # ERROR: No owners: Set owners in source_ami_filter:
    most_recent = true
  }
}

build {
  sources = ["amazon-ebs.a"]
}
