source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  snapshot_copy_duration_minutes = 2895 # ERROR: Invalid duration: snapshot_copy_duration_minutes must be a multiple of 15 up to 2880, not 2895.

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
