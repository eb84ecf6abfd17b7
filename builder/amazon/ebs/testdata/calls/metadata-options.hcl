ami_name = "web"
metadata_options {
  http_tokens                 = "required"
  http_put_response_hop_limit = 2
  instance_metadata_tags      = "enabled"
}
