ami_name = "web"
region   = "us-gov-west-1"
run_tags = { Team = "images" }
tags     = { Name = "web" }
