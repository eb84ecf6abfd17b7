variable "none" {
  default = null
}

source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  ami_groups         = [""]
  ami_users          = [""]
  ami_regions        = [""]
  security_group_ids = []
  assume_role {
    role_arn = var.none
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
