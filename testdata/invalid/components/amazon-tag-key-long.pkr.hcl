source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  tags = { (join("", [for i in range(129) : "k"])) = "1" } # ERROR: Invalid tag: The key "kkkkkkkkkkkkkkkkkkkk..." has 129 characters; AWS allows 128.

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
