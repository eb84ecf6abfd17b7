# Options of Ansible's provisioners that public templates have, in the forms that they have.
variable "use_proxy" {
  type    = bool
  default = null
}

variable "galaxy" {
  type    = string
  default = ""
}

source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "ansible" {
    playbook_file           = "${path.root}/ansible.pkr.hcl"
    skip_version_check      = true
    user                    = build.User
    use_proxy               = var.use_proxy
    galaxy_file             = var.galaxy
    use_sftp                = false
    local_port              = 0
    groups                  = []
    ansible_proxy_key_type  = "rsa"
    inventory_file_template = "{{ .HostAlias }} ansible_host={{ .ID }} ansible_user={{ .User }}\n"
    ansible_env_vars        = ["ANSIBLE_HOST_KEY_CHECKING=False", "WINRM_PASSWORD={{.WinRMPassword}}", "X={{ build `Password` }}"]
    ansible_ssh_extra_args  = ["-o HostKeyAlgorithms=+ssh-rsa", "-o PubkeyAcceptedKeyTypes=+ssh-rsa"]
    extra_arguments = [
      "--extra-vars", "winrm_password=${build.Password} ansible_shell_type=powershell",
      "--scp-extra-args", "'-O'",
      "-vvv",
    ]
  }

  provisioner "ansible-local" {
    playbook_files          = ["${path.root}/ansible.pkr.hcl"]
    playbook_dir            = path.root
    role_paths              = [path.root]
    inventory_groups        = ["web", "db"]
    extra_arguments         = ["--extra-vars \"id=${build.ID}\""]
    clean_staging_directory = true
    command                 = "ANSIBLE_FORCE_COLOR=1 ansible-playbook"
  }
}
