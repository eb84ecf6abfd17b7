source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "ansible" {
    playbook_file          = "missing.yml" # ERROR: No such file: There is no file "missing.yml"
    command                = "no-such-ansible" # WARNING: Ansible is not installed here: There is no no-such-ansible in PATH.
    ansible_env_vars       = ["A"]   # ERROR: Not an environment variable
    local_port             = 65536   # ERROR: Not a TCP port
    ansible_proxy_key_type = "dsa"   # ERROR: Invalid value
    inventory_directory    = "there" # ERROR: No such directory
  }

  provisioner "ansible" { # ERROR: Missing required argument
    skip_version_check = true
    playbook           = "site.yml" # ERROR: Unsupported argument
  }

  provisioner "ansible-local" { # ERROR: No playbook
    role_paths = ["there"] # ERROR: No such directory
  }
}
