ami_name = "web"
region          = "cn-north-1"
run_tags        = { Team = "images" }
run_volume_tags = { Volume = "root" }
tags            = { Name = "web" }
