ami_name = "web"
ami_regions        = ["eu-west-1"]
region_kms_key_ids = { eu-west-1 = "mrk-0123456789abcdef0123456789abcdef" }
