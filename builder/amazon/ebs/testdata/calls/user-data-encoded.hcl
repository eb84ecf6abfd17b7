ami_name = "web"
user_data = "IyEvYmluL3NoCmVjaG8gaGkK"
