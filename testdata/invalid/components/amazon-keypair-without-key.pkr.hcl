source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  ssh_keypair_name = "mine" # ERROR: Key pair without its private key: Set ssh_private_key_file to the private key of this key pair, or ssh_agent_auth if the agent has it.

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
