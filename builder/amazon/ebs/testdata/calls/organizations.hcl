ami_name = "web"
ami_org_arns = ["arn:aws:organizations::123456789012:organization/o-abcdefghij"]
ami_ou_arns  = ["arn:aws:organizations::123456789012:ou/o-abcdefghij/ou-ab12-cdefghij"]
ami_users    = ["123456789013"]
