# A block of credentials in which nothing is set is none.

variable "empty" {
  default = ""
}

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
  sources = ["amazon-ebs.a"]
}
