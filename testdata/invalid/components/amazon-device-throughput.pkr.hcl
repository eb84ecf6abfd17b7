source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  launch_block_device_mappings {
    device_name = "/dev/xvdb"
    volume_type = "gp3"
    throughput  = 124 # ERROR: Invalid throughput: gp3 volumes have a throughput of 125 to 1000 MiB/s, not 124.
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
