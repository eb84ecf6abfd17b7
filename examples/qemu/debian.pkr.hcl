# A disk image for QEMU and libvirt, made from Debian's cloud image. It needs the plugin
# github.com/hashicorp/qemu, which bake init installs, and qemu-system-x86_64:
#
#   bake init examples/qemu
#   bake build examples/qemu
#
# Without /dev/kvm: bake build -var accelerator=tcg examples/qemu

packer {
  required_plugins {
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = "~> 1.1"
    }
  }
}

variable "image" {
  description = "Debian's image to start from"
  type        = string
  default     = "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2"
}

variable "checksum" {
  description = "the image's checksum, or where it is published"
  type        = string
  default     = "file:https://cloud.debian.org/images/cloud/bookworm/latest/SHA512SUMS"
}

variable "accelerator" {
  type    = string
  default = "kvm"
}

variable "password" {
  description = "of the user debian, while the image is made"
  type        = string
  default     = "only-while-baking"
  sensitive   = true
}

source "qemu" "debian" {
  iso_url      = var.image
  iso_checksum = var.checksum
  disk_image   = true
  disk_size    = "8G"
  format       = "qcow2"
  accelerator  = var.accelerator
  memory       = 1024
  headless     = true

  # cloud-init reads what is on this disk.
  cd_label = "cidata"
  cd_content = {
    "meta-data" = ""
    "user-data" = <<-EOT
      #cloud-config
      password: ${var.password}
      chpasswd: { expire: false }
      ssh_pwauth: true
    EOT
  }

  ssh_username     = "debian"
  ssh_password     = var.password
  ssh_timeout      = "15m"
  shutdown_command = "sudo shutdown -P now"
  output_directory = "output"
  vm_name          = "debian.qcow2"
}

build {
  sources = ["source.qemu.debian"]

  provisioner "shell" {
    inline = [
      "sudo apt-get update",
      "sudo apt-get install -y nginx",
      "sudo passwd -l debian",
      "sudo cloud-init clean --logs",
    ]
  }

  post-processor "manifest" {
    output = "output/manifest.json"
  }
}
