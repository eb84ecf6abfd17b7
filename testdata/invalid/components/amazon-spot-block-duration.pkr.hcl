source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  spot_price             = "auto"
  block_duration_minutes = 90 # WARNING: Deprecated argument: EC2 no longer has spot instances with a fixed duration; # ERROR: Invalid duration: block_duration_minutes must be a multiple of 60.

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
