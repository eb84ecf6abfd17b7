ami_name = "web"
