source "amazon-ebs" "a" {
  region              = "us-east-1"
  spot_instance_types = ["t3.micro"] # ERROR: No spot instance: This is for spot instances only;
  ssh_username        = "admin"
  ami_name            = "web"

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
