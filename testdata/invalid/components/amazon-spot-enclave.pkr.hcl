source "amazon-ebs" "a" {
  region               = "us-east-1"
  spot_instance_types  = ["m5.large", "c5.large"]
  spot_price           = "0.1"
  enable_nitro_enclave = true # ERROR: No enclaves on spot instances: Spot instances do not support Nitro enclaves.
  ssh_username         = "admin"
  ami_name             = "web"

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
