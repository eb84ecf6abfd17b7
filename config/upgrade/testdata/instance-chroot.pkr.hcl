packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1"
    }
  }
}

variable "size" {
  type = string
}

locals {
  timestamp = regex_replace(timestamp(), "[- TZ:]", "")
}

source "amazon-chroot" "chroot" {
  source_ami          = "ami-1"
  ami_name            = "a ${local.timestamp}"
  chroot_mounts       = [["proc", "proc", "/proc"], ["bind", "/dev", "/dev"]]
  post_mount_commands = ["cp {{.MountPath}}/x /y", "echo {{.Device}}"]
  command_wrapper     = "sudo {{.Command}}"
}

source "amazon-instance" "instance" {
  account_id         = "1234"
  s3_bucket          = "b"
  bundle_vol_command = "sudo -n ec2-bundle-vol -k {{.KeyPath}} -u {{.AccountId}} -p {{.Prefix}} --size ${var.size}"
}

source "amazon-ebssurrogate" "surrogate" {
  ami_root_device {
    source_device_name    = "/dev/xvdf"
    device_name           = "/dev/xvda"
    delete_on_termination = true
  }

  temporary_iam_instance_profile_policy_document {
    Version = "2012-10-17"

    Statement {
      Effect   = "Allow"
      Action   = ["logs:*"]
      Resource = "*"
    }
  }
}

source "amazon-ebsvolume" "volume" {
  ebs_volumes {
    volume_type = "gp2"
    device_name = "/dev/xvdf"
    tags = {
      zpool = "data"
      Name  = "Data1"
    }
  }
}

build {
  sources = [
    "source.amazon-chroot.chroot",
    "source.amazon-instance.instance",
    "source.amazon-ebssurrogate.surrogate",
    "source.amazon-ebsvolume.volume",
  ]

  post-processor "amazon-import" {
    s3_bucket_name = "b"
    tags = {
      a = "b"
    }
  }
}
