ami_name = "web"
temporary_key_pair_name = "my-key"
run_tags                = { Team = "images" }
