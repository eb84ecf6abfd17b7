ami_name = "web"
encrypt_boot       = true
kms_key_id         = "alias/images"
ami_regions        = ["eu-west-1", "us-west-2"]
region_kms_key_ids = { eu-west-1 = "alias/images-eu", us-west-2 = "" }
