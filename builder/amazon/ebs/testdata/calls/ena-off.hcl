ami_name = "web"
ena_support = false
