# A misspelt name is one error: what is missing for that reason is not mentioned.

source "amazon-ebs" "a" {
  regoin       = "eu-west-1" # ERROR: Unsupported argument: An argument named "regoin" is not expected here. Did you mean "region"?
  source_am    = "ami-0123456789abcdef0" # ERROR: Unsupported argument: An argument named "source_am" is not expected here. Did you mean "source_ami"?
  instance_typ = "t3.micro" # ERROR: Unsupported argument: An argument named "instance_typ" is not expected here. Did you mean "instance_type"?
  ami_nam      = "abc" # ERROR: Unsupported argument: An argument named "ami_nam" is not expected here. Did you mean "ami_name"?
  ssh_usernam  = "admin" # ERROR: Unsupported argument: An argument named "ssh_usernam" is not expected here. Did you mean "ssh_username"?
}

source "amazon-ebs" "b" {
  region        = "eu-west-1"
  instance_type = "t3.micro"
  ami_name      = "abc"
  ssh_username  = "admin"

  source_ami_filer { # ERROR: Unsupported block type: Blocks of type "source_ami_filer" are not expected here. Did you mean "source_ami_filter"?
    owners = ["self"]
  }
}

source "amazon-ebs" "c" {
  region        = "eu-west-1"
  instance_type = "t3.micro"
  ami_name      = "abc"
  ssh_username  = "admin"

  source_ami_filter {
    owner   = ["self"] # ERROR: Unsupported argument: An argument named "owner" is not expected here. Did you mean "owners"?
    filters = { name = "x" }
  }
}

build {
  sources = ["amazon-ebs.a", "amazon-ebs.b", "amazon-ebs.c"]

  provisioner "shell-local" {
    scrpt = "x" # ERROR: Unsupported argument: An argument named "scrpt" is not expected here. Did you mean "script"?
  }
}
