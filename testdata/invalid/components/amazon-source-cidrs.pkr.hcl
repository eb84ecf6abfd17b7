source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  temporary_security_group_source_cidrs = ["10.0.0.1"] # ERROR: Not an address range: "10.0.0.1" is not a range such as 192.0.2.0/24 or 2001:db8::/32.

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
