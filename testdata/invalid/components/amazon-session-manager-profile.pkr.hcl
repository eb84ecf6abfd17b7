source "amazon-ebs" "a" {
  ami_name      = "name"
  instance_type = "t3.micro"
  source_ami    = "ami-12345678"
  ssh_username  = "admin"
  ssh_interface = "session_manager" # ERROR: No instance profile
}
build { sources = ["source.amazon-ebs.a"] }
