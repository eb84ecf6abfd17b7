source "amazon-chroot" "a" {
  region   = "us-east-1"
  ami_name = "web"

  root_device_name = "xvda" # ERROR: Root device without mappings: root_device_name needs ami_block_device_mappings.

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-chroot.a"]
}
