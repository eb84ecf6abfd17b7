ami_name = "web"
# The embedded EC2 knows no product codes: the build fails, and all is deleted.
ami_product_codes = ["abcdefghijklmnopqrstuvwxy"]
