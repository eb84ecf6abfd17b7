ami_name = "web"
no_ephemeral = true
