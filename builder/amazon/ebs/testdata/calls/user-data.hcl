ami_name = "web"
user_data = "#!/bin/sh\necho hello\n"
