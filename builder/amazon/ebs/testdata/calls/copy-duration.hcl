ami_name = "web"
ami_regions                    = ["eu-west-1"]
snapshot_copy_duration_minutes = 30
