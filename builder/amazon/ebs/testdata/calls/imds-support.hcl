ami_name = "web"
ami_regions  = ["eu-west-1"]
imds_support = "v2.0"
