source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  encrypt_boot       = false
  ami_regions        = ["eu-west-1"]
  region_kms_key_ids = { eu-west-1 = "alias/mine" } # ERROR: Key without encryption: The copy in eu-west-1 cannot have a key:

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
