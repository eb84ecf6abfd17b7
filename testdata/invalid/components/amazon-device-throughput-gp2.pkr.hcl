source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  launch_block_device_mappings {
    device_name = "/dev/xvdb"
    volume_type = "gp2"
    throughput  = 200 # ERROR: Throughput without gp3: Throughput can be set only for gp3 volumes.
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
