source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  ami_description = "from {{ .SourceAMIName.Oops }}" # ERROR: Invalid {{ }} template: Argument "ami_description": the variable .SourceAMIName is a string and has no .Oops.

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
