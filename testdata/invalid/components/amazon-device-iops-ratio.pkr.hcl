source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  launch_block_device_mappings {
    device_name = "/dev/xvdb"
    volume_type = "io1"
    volume_size = 10
    iops        = 501 # ERROR: Too many IOPS: io1 volumes have at most 50 IOPS per GiB:
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
