ami_name = "web"
enable_unlimited_credits = true
