source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  vault_aws_engine {
    name        = "" # ERROR: No name: Set name to the role in Vault to get credentials for
    engine_name = "aws-eu"
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
