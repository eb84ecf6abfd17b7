ami_name = "web"
encrypt_boot = false
ami_regions  = ["eu-west-1"]
