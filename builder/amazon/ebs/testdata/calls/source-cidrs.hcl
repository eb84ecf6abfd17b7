ami_name = "web"
temporary_security_group_source_cidrs = ["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32", "127.0.0.0/8"]
ssh_port = 22
