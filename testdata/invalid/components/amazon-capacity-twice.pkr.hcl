source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  capacity_reservation_id        = "cr-1"
  capacity_reservation_group_arn = "arn:aws:resource-groups:us-east-1:123456789012:group/g" # ERROR: Conflicting arguments: Set either capacity_reservation_id or capacity_reservation_group_arn.

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
