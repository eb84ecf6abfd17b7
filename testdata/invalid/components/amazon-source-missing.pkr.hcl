source "amazon-ebs" "a" { # ERROR: No source image: Set source_ami or source_ami_filter.
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"
}

build {
  sources = ["amazon-ebs.a"]
}
