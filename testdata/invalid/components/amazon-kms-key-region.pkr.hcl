source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  ami_regions        = ["eu-west-1"]
  encrypt_boot       = true
  region_kms_key_ids = { "eu-west-1" = "arn:aws:kms:us-west-2:123456789012:alias/mine" } # ERROR: KMS key of another region: "arn:aws:kms:us-west-2:123456789012:alias/mine" is a key in us-west-2,

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
