source "amazon-ebs" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"

  temporary_iam_instance_profile_policy_document {
    Statement { # ERROR: Missing required argument: The argument "Resource" is required, but no definition was found.
      Effect = "Allow"
      Action = ["a:b"]
    }
  }

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]
}
