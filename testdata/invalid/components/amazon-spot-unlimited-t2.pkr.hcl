source "amazon-ebs" "a" {
  region                   = "us-east-1"
  instance_type            = "t2.micro"
  spot_price               = "auto"
  enable_unlimited_credits = true # ERROR: No unlimited credits on t2 spot instances: A t2.micro spot instance cannot have unlimited credits.
  ssh_username             = "admin"
  ami_name                 = "web"

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
