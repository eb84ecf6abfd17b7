packer {
  required_plugins {
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = "~> 1"
    }
  }
}

variable "ram" {
  type    = string
  default = "1024"
}

variable "debug" {
  type    = string
  default = "false"
}

source "qemu" "centos" {
  iso_url          = "http://example.com/c.iso"
  iso_checksum     = "md5:0d9dc37b5dd4befa1c440d2174e88a87"
  output_directory = "out_{{build_name}}"
  vm_name          = "tdhtest"
  accelerator      = "kvm"
  format           = "qcow2"
  qemuargs = [
    ["-m", "${var.ram}M"],
    ["-smp", "cpus=1,maxcpus=16,cores=4"],
  ]
  http_content = {
    "/ks.cfg" = "install\nreboot\ntext\n"
  }
  boot_command = ["<tab> text ks=http://{{ .HTTPIP }}:{{ .HTTPPort }}/ks.cfg<enter><wait>"]
}

build {
  sources = ["source.qemu.centos"]
}
