ami_name = "web"
encrypt_boot = true
