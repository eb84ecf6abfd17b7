ami_name = "web"
snapshot_users  = ["123456789013"]
snapshot_groups = ["all"]
