source "amazon-ebs" "a" {
  ami_name             = "name"
  instance_type        = "t3.micro"
  source_ami           = "ami-12345678"
  communicator         = "none"
  iam_instance_profile = "ssm"
  ssh_interface        = "session_manager" # ERROR: Session Manager carries SSH only
  session_manager_port = 70000 # ERROR: Not a port
}
build { sources = ["source.amazon-ebs.a"] }
