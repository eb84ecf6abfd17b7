package debian

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// Command returns the command of the second stage, for a machine whose root was written by
// WriteTar. It needs no network. Its output is meant for a log.
func (s *System) Command() []string {
	names := make([]string, len(s.Packages))
	for i, p := range s.Packages {
		names[i] = p.Name
	}
	return []string{
		"/bin/sh", "-c", setupScript, "setup",
		s.arch, s.user, strings.Join(names, " "), s.Name, s.Groups,
	}
}

// setupScript has these arguments: architecture, login user, all packages in order, the login
// user's full name, and the login user's groups.
//
//go:embed setup.sh
var setupScript string

// configuration writes the files that distinguish a cloud image from a plain system, as in the
// images of the Debian cloud team.
func (t *tree) configuration() error {
	files := []configurationFile{
		{"etc/cloud/cloud.cfg.d/90_bake.cfg", 0o644, strings.ReplaceAll(cloudConfig, "LOGIN", t.system.user)},
		{"etc/default/locale", 0o644, "LANG=C.UTF-8\n"},
		{"etc/fstab", 0o644, "# The machine mounts its root file system itself.\n"},
		{"etc/machine-id", 0o644, ""},
		{"etc/timezone", 0o644, "Etc/UTC\n"},
		{"etc/sudoers.d/90-cloud-init-users", 0o440, "# User rules for " + t.system.user + "\n" + t.system.user + " ALL=(ALL) NOPASSWD:ALL\n"},
	}
	if t.system.Name == "Ubuntu" {
		files = append(files, configurationFile{"usr/bin/snap", 0o755, noSnap})
	}
	for _, f := range append(files, t.system.aptSources()...) {
		if err := t.file(f.name, f.mode, f.content); err != nil {
			return err
		}
	}
	return nil
}

type configurationFile struct {
	name    string
	mode    int64
	content string
}

// noSnap replaces the snap command in Ubuntu images.
const noSnap = `#!/bin/sh
echo "snap: snaps do not work on local machines, which cannot mount them: install a Debian package instead, or bake on AWS" >&2
exit 1
`

// aptSources returns the files with the package sources, in the format of the release's official
// images.
func (s *System) aptSources() []configurationFile {
	if !slices.Contains([]string{"noble", "trixie"}, s.suite) {
		return []configurationFile{{"etc/apt/sources.list", 0o644, strings.Join(s.Sources, "\n") + "\n"}}
	}
	keyring := "/usr/share/keyrings/" + s.Keyring + ".gpg"
	var b strings.Builder
	for _, src := range s.sources {
		expired := ""
		if src.Expired {
			expired = "Check-Valid-Until: no\n"
		}
		fmt.Fprintf(&b, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n%sSigned-By: %s\n\n", src.URI, src.Suite, strings.Join(src.Components, " "), expired, keyring)
	}
	name := "etc/apt/sources.list.d/" + strings.ToLower(s.Name) + ".sources"
	return []configurationFile{{name, 0o644, b.String()}, {"etc/apt/sources.list", 0o644, "# See /" + name + ".\n"}}
}

// cloudConfig adapts cloud-init to the embedded cloud: it does not search for other clouds,
// does not guess from the host's firmware, and leaves the network unchanged; the disk is not
// a separate device; and packages come from the mirror of the base. cloud-init may replace
// the host keys, as on any cloud. On the embedded cloud, where a machine starts with its own
// host keys, the machine itself tells cloud-init not to.
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
