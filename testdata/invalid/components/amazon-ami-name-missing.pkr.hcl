source "amazon-ebs" "a" { # ERROR: Missing required argument: The argument "ami_name" is required, but no definition was found.
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
