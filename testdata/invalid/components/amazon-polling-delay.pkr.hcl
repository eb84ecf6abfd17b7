source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  aws_polling {
    delay_seconds = -1 # ERROR: Negative number: delay_seconds cannot be negative.
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
