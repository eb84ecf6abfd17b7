ami_name = "web"
ami_block_device_mappings {
  device_name  = "/dev/sdb"
  virtual_name = "ephemeral0"
}
ami_block_device_mappings {
  device_name           = "/dev/sdf"
  volume_size           = 5
  volume_type           = "gp3"
  delete_on_termination = true
}
ami_block_device_mappings {
  device_name = "/dev/sdc"
  no_device   = true
}
