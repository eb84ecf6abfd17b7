source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  run_tags = { for i in range(30) : "r${i}" => "v" }
  tags     = { for i in range(30) : "t${i}" => "v" } # ERROR: Too many tags: One resource gets 60 tags.

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
