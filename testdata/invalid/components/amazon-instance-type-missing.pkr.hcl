source "amazon-ebs" "a" { # ERROR: Missing required argument: The argument "instance_type" is required, but no definition was found.
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
