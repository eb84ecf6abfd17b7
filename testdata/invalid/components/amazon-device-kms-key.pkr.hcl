source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  launch_block_device_mappings {
    device_name = "/dev/xvdb"
    kms_key_id  = "mine" # ERROR: Not a KMS key: "mine" is not a key id, an alias (alias/...) or an ARN of either.
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
