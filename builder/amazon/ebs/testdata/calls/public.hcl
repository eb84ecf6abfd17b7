ami_name = "web"
ami_groups = ["all"]
ami_users  = ["123456789013"]
