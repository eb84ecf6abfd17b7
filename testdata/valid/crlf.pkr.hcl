source "null" "crlf" {
  communicator = "none"
}

build {
  sources = ["null.crlf"]

  provisioner "shell" {
    inline = [<<EOT
echo one
echo two
EOT
    ]
  }
}
