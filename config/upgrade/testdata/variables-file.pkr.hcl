variable "aws_region" {
  type = string
}

variable "aws_secondary_region" {
  type    = string
  default = env("AWS_DEFAULT_REGION")
}

variable "aws_secret_key" {
  type      = string
  default   = ""
  sensitive = true
}

variable "aws_access_key" {
  type      = string
  default   = ""
  sensitive = true
}
