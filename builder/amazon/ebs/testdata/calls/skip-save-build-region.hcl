ami_name = "web"
ami_regions            = ["eu-west-1"]
skip_save_build_region = true
tags                   = { Name = "web" }
