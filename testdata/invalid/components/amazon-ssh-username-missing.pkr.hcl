source "amazon-ebs" "a" { # ERROR: Missing ssh_username: SSH needs the name of the user to log in as.
  region        = "us-east-1"
  instance_type = "t3.micro"
  ami_name      = "web"

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
