# The {{ }} layer: functions that render, and text that does not.
source "file" "a" {
  target  = "{{ build_name }}-{{ build_type }}-{{ timestamp }}-{{ isotime `20060102` }}-{{ uuid }}"
  content = "{{ .Nothing }} {{`{{`}} {{ packer_version | upper }} {{ pwd }} {{ split `a.b` `.` 1 }}"
}

build {
  sources = ["file.a"]

  provisioner "shell" {
    inline = [
      "echo {{ if eq build_type `file` }}{{ lower `YES` }}{{ else }}no{{ end }}",
      "echo {{ `a-b` | replace `-` `_` 1 }} {{ replace_all `a` `b` `aaa` }} {{ strftime `%Y %Q` }}",
      "docker inspect --format '{{ .State.Status }}' x {{ printf `%03d` 7 }}",
    ]
  }
}
