source "amazon-ebs" "a" {
  region        = "us-east-1b" # ERROR: Not a region: "us-east-1b" is not the name of a region, but of an availability zone; the region is us-east-1.
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  skip_region_validation = true

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
