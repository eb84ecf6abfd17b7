ami_name = "web"
ami_regions  = ["eu-west-1"]
deprecate_at = "2035-01-02T15:04:05Z"
