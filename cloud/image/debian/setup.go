package debian

import (
	_ "embed"
	"strings"
)

// Command is the second stage: what the machine runs that has the tree of
// WriteTar as its root. It needs no network. Its output is for a log.
func (s *System) Command() []string {
	names := make([]string, len(s.Packages))
	for i, p := range s.Packages {
		names[i] = p.Name
	}
	return []string{
		"/bin/sh", "-c", setupScript, "setup",
		s.arch, s.user, strings.Join(names, " "),
	}
}

// setupScript takes: architecture, login user, all packages in order.
//
//go:embed setup.sh
var setupScript string

// configuration writes the files that make a cloud machine of a plain system,
// as the Debian cloud team's images have them.
func (t *tree) configuration() error {
	for _, f := range []struct {
		name    string
		mode    int64
		content string
	}{
		{"etc/apt/sources.list", 0o644, strings.Join(t.system.Sources, "\n") + "\n"},
		{"etc/cloud/cloud.cfg.d/90_bake.cfg", 0o644, strings.ReplaceAll(cloudConfig, "LOGIN", t.system.user)},
		{"etc/default/locale", 0o644, "LANG=C.UTF-8\n"},
		{"etc/fstab", 0o644, "# The machine mounts its root file system itself.\n"},
		{"etc/machine-id", 0o644, ""},
		{"etc/timezone", 0o644, "Etc/UTC\n"},
		{"etc/sudoers.d/90-cloud-init-users", 0o440, "# User rules for " + t.system.user + "\n" + t.system.user + " ALL=(ALL) NOPASSWD:ALL\n"},
	} {
		if err := t.file(f.name, f.mode, f.content); err != nil {
			return err
		}
	}
	return nil
}

// cloudConfig fits cloud-init to the embedded cloud: no search for other
// clouds, no guess from the host's firmware, the network left as it is, a
// disk that is no device of its own, and the mirror the base came from. Host keys
// are cloud-init's to replace, as on any cloud: on the embedded one, where a machine
// is born with its own, the machine says so itself.
const cloudConfig = `datasource_list: [Ec2]
datasource:
  Ec2:
    strict_id: false
    timeout: 5
    max_wait: 20
network:
  config: disabled
ssh_pwauth: false
disable_root: true
resize_rootfs: false
growpart:
  mode: "off"
locale: C.UTF-8
apt:
  preserve_sources_list: true
system_info:
  default_user:
    name: LOGIN
`
