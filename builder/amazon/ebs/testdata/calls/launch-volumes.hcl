ami_name = "web"
launch_block_device_mappings {
  device_name           = "/dev/xvda"
  volume_size           = 20
  volume_type           = "gp3"
  iops                  = 4000
  throughput            = 200
  delete_on_termination = true
}
launch_block_device_mappings {
  device_name = "/dev/sdf"
  volume_size = 10
  volume_type = "io1"
  iops        = 200
  encrypted   = true
  kms_key_id  = "alias/volumes"
}
launch_block_device_mappings {
  device_name = "/dev/sdg"
  volume_size = 10
  volume_type = "gp2"
  iops        = 100
}
