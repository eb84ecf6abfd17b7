ami_name = "web"
license_specifications {
  license_configuration_request {
    license_configuration_arn = "arn:aws:license-manager:us-east-1:123456789012:license-configuration:lic-0123456789abcdef0123456789abcdef"
  }
}
