// Package knownplugins maps components to the public plugins that contain them, so that
// diagnostics can name the plugin that a template needs. It knows names only and makes no
// queries.
package knownplugins

import (
	"cmp"
	"slices"
	"strings"
)

// Plugin is a public plugin.
type Plugin struct {
	Name    string // the prefix of its components
	Source  string // such as github.com/hashicorp/qemu
	Version string // a constraint that its current releases meet
}

// published are all plugins, with their sources if not HashiCorp's and their versions if
// not 1.x.
var published = []Plugin{
	{Name: "alicloud"}, {Name: "amazon"}, {Name: "ansible"}, {Name: "azure"}, {Name: "chef"}, {Name: "cloudstack"},
	{Name: "converge"}, {Name: "docker"}, {Name: "googlecompute"}, {Name: "hyperone"}, {Name: "hyperv"}, {Name: "inspec"},
	{Name: "jdcloud"}, {Name: "lxc"}, {Name: "lxd"}, {Name: "ncloud"}, {Name: "oneandone"}, {Name: "openstack"},
	{Name: "oracle"}, {Name: "profitbricks"}, {Name: "proxmox"}, {Name: "puppet"}, {Name: "qemu"}, {Name: "salt"},
	{Name: "tencentcloud"}, {Name: "triton"}, {Name: "vagrant"}, {Name: "virtualbox"}, {Name: "vmware"}, {Name: "vsphere"},
	{Name: "yandex"},

	{"amazon-ami-management", "github.com/wata727/amazon-ami-management", ""},
	{"digitalocean", "github.com/digitalocean/digitalocean", ""},
	{"exoscale", "github.com/exoscale/exoscale", ">= 0.1.0"},
	{"external", "github.com/joomcode/external", ">= 0.0.1"},
	{"git", "github.com/ethanmdavidson/git", ">= 0.6.0"},
	{"goss", "github.com/YaleUniversity/goss", "~> 3"},
	{"hcloud", "github.com/hetznercloud/hcloud", ""},
	{"host-info", "github.com/stromweld/host-info", ">= 0.0.1"},
	{"huaweicloud", "github.com/huaweicloud/huaweicloud", ""},
	{"libvirt", "github.com/thomasklein94/libvirt", ">= 0.5.0"},
	{"linode", "github.com/linode/linode", ""},
	{"nutanix", "github.com/nutanix-cloud-native/nutanix", ">= 0.9.0"},
	{"outscale", "github.com/outscale/outscale", ""},
	{"oxide", "github.com/oxidecomputer/oxide", ">= 0.1.0"},
	{"parallels", "github.com/Parallels/parallels", ""},
	{"scaleway", "github.com/scaleway/scaleway", ""},
	{"sshkey", "github.com/ivoronin/sshkey", ""},
	{"tart", "github.com/cirruslabs/tart", ""},
	{"ucloud", "github.com/ucloud/ucloud", ""},
	{"upcloud", "github.com/UpCloudLtd/upcloud", ""},
	{"utm", "github.com/naveenrajm7/utm", ">= 0.0.1"},
	{"veertu-anka", "github.com/veertuinc/veertu-anka", ">= 1.0.0"},
	{"vultr", "github.com/vultr/vultr", ">= 2.0.0"},
	{"windows-update", "github.com/rgl/windows-update", ">= 0.14.0"},
}

// Of returns the plugin that a component comes with, by the component's name.
func Of(component string) (Plugin, bool) {
	for name := component; ; {
		if i := slices.IndexFunc(published, func(p Plugin) bool { return p.Name == name }); i >= 0 {
			p := published[i]
			p.Source = cmp.Or(p.Source, "github.com/hashicorp/"+name)
			p.Version = cmp.Or(p.Version, "~> 1")
			return p, true
		}
		i := strings.LastIndexByte(name, '-')
		if i < 0 {
			return Plugin{}, false
		}
		name = name[:i]
	}
}

// Names returns the names of all, in order.
func Names() (names []string) {
	for _, p := range published {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	return names
}
