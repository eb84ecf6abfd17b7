ami_name = "web"
associate_public_ip_address = true
