variable "password" {
  default   = "tr0ub4dor&3-x"
  sensitive = true
}

source "amazon-ebs" "a" {
  region         = "us-east-1"
  instance_type  = "t3.micro"
  communicator   = "winrm"
  winrm_username = "Administrator"
  ami_name       = "windows"

  source_ami_filter {
    owners      = ["801119661308"]
    most_recent = true
    filters     = { name = "Windows_Server-2022-English-Full-Base-*" }
  }
}

build {
  sources = ["amazon-ebs.a"]

  provisioner "powershell" {
    inline            = ["Write-Output $env:A", "if ($true) { exit 3010 }"]
    env               = { A = "b" }
    environment_vars  = ["WINRMPASS={{.WinRMPassword}}"]
    elevated_user     = build.User
    elevated_password = build.Password
    execution_policy  = "RemoteSigned"
    valid_exit_codes  = [0, 3010]
  }

  provisioner "powershell" {
    inline                   = ["dir"]
    elevated_user            = "SYSTEM"
    elevated_password        = ""
    elevated_env_var_format  = "$env:%s=\"%s\"; "
    elevated_execute_command = "powershell -file {{.Path}}"
    use_pwsh                 = true
    debug_mode               = 1
    binary                   = true
    remote_path              = "c:/Windows/Temp/a.ps1"
    remote_env_var_path      = "c:/Windows/Temp/b.ps1"
    skip_clean               = true
    pause_after              = "1s"
    start_retry_timeout      = "10m"
  }

  provisioner "powershell" {
    inline            = ["dir"]
    elevated_user     = "Administrator"
    elevated_password = var.password
    execution_policy  = "none"
    execute_command   = "powershell \"& { {{.Path}}; exit $LastExitCode}\""
    env_var_format    = "$env:%s=\"%s\"; "
  }
}
