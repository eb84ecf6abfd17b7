# What is empty or 0 is not set, as what is null is not.

variable "empty" {
  default = ""
}

source "null" "a" {
  communicator = var.empty
  ssh_timeout  = ""
}

source "null" "b" {
  communicator = null
  ssh_timeout  = "0s"
}

# A block of credentials in which nothing is set is none.
source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"
  source_ami    = "ami-0123456789abcdef0"
  assume_role { role_arn = var.empty }
  vault_aws_engine {
    name        = var.empty
    engine_name = null
    role_arn    = ""
  }
}

build {
  sources = ["null.a", "null.b", "amazon-ebs.a"]

  post-processor "manifest" {
    output = var.empty
  }
}
