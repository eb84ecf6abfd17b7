ami_name = "web"
skip_create_ami = true
run_tags        = { Team = "images" }
