source "null" "a" {
  communicator = "none"
}

build {
  sources = ["null.a"]

  provisioner "powershell" {
    inline = ["dir"]
    script = "a.ps1" # ERROR: Two kinds of script: Set inline or script, not both. # ERROR: Script not found: There is no file "a.ps1"
  }
}
