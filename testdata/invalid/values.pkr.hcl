region = "eu-west-1" # ERROR: Values in place of a template
count  = 3
