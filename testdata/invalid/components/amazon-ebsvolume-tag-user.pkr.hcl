source "amazon-ebsvolume" "a" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"

  ebs_volumes {
    device_name    = "/dev/sdf"
    volume_size    = 1
    snapshot_users = ["all"]                     # ERROR: Invalid account ID: "all" in snapshot_users
    tags           = { Name = "{{ user `x` }}" } # ERROR: Invalid {{ }} template: Argument "tags": {{ user `x` }}: user is not allowed here; use ${var.NAME}
  }

  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}

build {
  sources = ["amazon-ebsvolume.a"]
}
