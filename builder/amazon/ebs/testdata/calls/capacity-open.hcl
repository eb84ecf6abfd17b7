ami_name = "web"
capacity_reservation_preference = "open"
