source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  assume_role { # ERROR: Missing required argument: The argument "role_arn" is required, but no definition was found.
    session_name = "s"
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
