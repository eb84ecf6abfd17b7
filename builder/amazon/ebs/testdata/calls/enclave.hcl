ami_name = "web"
instance_type        = "m5.xlarge"
enable_nitro_enclave = true
