ami_name = "web"
run_tags          = { Team = "images" }
tags              = { Name = "web" }
skip_ami_run_tags = true
