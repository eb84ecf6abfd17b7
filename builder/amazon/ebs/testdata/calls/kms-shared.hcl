ami_name = "web"
encrypt_boot   = true
kms_key_id     = "arn:aws:kms:us-east-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
ami_users      = ["123456789013"]
snapshot_users = ["123456789013"]
