ami_name = "web"
shutdown_behavior = "terminate"
ebs_optimized     = true
