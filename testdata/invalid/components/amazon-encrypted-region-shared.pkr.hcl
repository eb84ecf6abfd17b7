source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  encrypt_boot       = true
  ami_regions        = ["eu-west-1"]
  region_kms_key_ids = { eu-west-1 = "" }
  snapshot_users     = ["123456789012"] # ERROR: Sharing an image that others cannot decrypt: snapshot_users needs a customer managed KMS key:

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
