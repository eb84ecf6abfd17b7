source "amazon-chroot" "a" {
  region   = "us-east-1"
  ami_name = "web"

  root_device_name = "xvda" # ERROR: Root device without mappings: The image has the root device of the source image;

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-chroot.a"]
}
