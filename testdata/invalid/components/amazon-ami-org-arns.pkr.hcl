source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  ami_org_arns = ["o-abc"] # ERROR: Not the ARN of an organization: "o-abc" in ami_org_arns is not the ARN of an organization, such as arn:aws:organizations::

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
