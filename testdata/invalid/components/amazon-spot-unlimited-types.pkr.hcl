source "amazon-ebs" "a" {
  region                   = "us-east-1"
  spot_instance_types      = ["t3.micro", "m5.large"]
  spot_price               = "0.1"
  enable_unlimited_credits = true # ERROR: Not a burstable instance type: Only t2, t3, t3a and t4g instances have CPU credits;
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
