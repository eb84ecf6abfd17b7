ami_name = "web"
ami_description = "from {{ .SourceAMIName }}"
ami_regions     = ["eu-west-1", "us-west-2", "us-east-1"]
ami_users       = ["123456789013", "210987654321"]
run_tags        = { Team = "images" }
run_volume_tags = { Volume = "root" }
tags            = { Name = "web", Base = "{{ .SourceAMIName }}", Region = "{{ .BuildRegion }}" }
tag {
  key   = "Name"
  value = "block"
}
snapshot_tags = { Snap = "yes" }
