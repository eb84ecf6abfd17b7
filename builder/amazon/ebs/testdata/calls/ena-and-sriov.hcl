ami_name = "web"
ena_support   = true
sriov_support = true
