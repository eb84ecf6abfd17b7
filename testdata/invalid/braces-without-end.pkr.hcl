source "file" "a" {
  target  = "{{ range 1000000000 }}{{ end }}" # ERROR: Invalid {{ }} template
  content = "{{ .A "                          # ERROR: Invalid {{ }} template
}

build {
  sources = ["file.a"]

  provisioner "shell" {
    inline = ["{{ clean_resource_name `x` }}"] # ERROR: Invalid {{ }} template
  }

  provisioner "shell" {
    inline = ["{{ template_dir }}"] # ERROR: Invalid {{ }} template
  }
}
