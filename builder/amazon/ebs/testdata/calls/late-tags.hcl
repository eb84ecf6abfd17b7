ami_name = "web"
run_tags = { Base = "{{ .SourceAMIName }}", Owner = "{{ .SourceAMIOwner }}" }
run_volume_tag {
  name  = "From"
  value = "{{ .BuildRegion }}"
}
snapshot_tag {
  key   = "Created"
  value = "{{ .SourceAMICreationDate }}"
}
