source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  encrypt_boot       = true
  ami_regions        = ["eu-west-1", "us-west-2"]
  region_kms_key_ids = { us-west-2 = "alias/a" } # ERROR: Region without a key: ami_regions contains "eu-west-1", but region_kms_key_ids does not;

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
