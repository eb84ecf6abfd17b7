source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  access_key = "AKIAIOSFODNN7"
  secret_key = "wJalrXUtnFEMIbPxRfiCY"

  vault_aws_engine { # ERROR: Two sources of credentials: Set either access_key or vault_aws_engine.
    name = "ci"
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
