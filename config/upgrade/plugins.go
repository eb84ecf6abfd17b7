package upgrade

import (
	"regexp"
	"slices"
	"strings"
	"sync"
)

// plugin is an entry of required_plugins.
type plugin struct{ name, source string }

// ownPlugins are the plugins whose components do not come with the program, and
// where each is published if not by HashiCorp. Their names are the prefixes of
// the names of their components.
var ownPlugins = map[string]string{
	"alicloud": "", "amazon": "", "ansible": "", "azure": "", "chef": "", "cloudstack": "", "converge": "", "digitalocean": "",
	"docker": "", "exoscale": "github.com/exoscale/exoscale", "googlecompute": "", "goss": "github.com/YaleUniversity/goss",
	"hcloud": "github.com/hetznercloud/hcloud", "hyperone": "", "hyperv": "", "inspec": "", "jdcloud": "",
	"linode": "github.com/linode/linode", "lxc": "", "lxd": "", "ncloud": "", "nutanix": "github.com/nutanix-cloud-native/nutanix",
	"oneandone": "", "openstack": "", "oracle": "", "outscale": "github.com/outscale/outscale",
	"parallels": "github.com/Parallels/parallels", "profitbricks": "", "proxmox": "", "puppet": "", "qemu": "", "salt": "",
	"scaleway": "github.com/scaleway/scaleway", "tencentcloud": "", "triton": "", "ucloud": "github.com/ucloud/ucloud",
	"upcloud": "github.com/UpCloudLtd/upcloud", "vagrant": "", "virtualbox": "", "vmware": "", "vsphere": "",
	"vultr": "github.com/vultr/vultr", "windows-update": "github.com/rgl/windows-update", "yandex": "",
}

// requirePlugin notes the plugin that a component comes with.
func (c *converter) requirePlugin(component string) {
	name := component
	for {
		source, ok := ownPlugins[name]
		if ok {
			if source == "" {
				source = "github.com/hashicorp/" + name
			}
			p := plugin{name, source}
			if i, have := slices.BinarySearchFunc(c.plugins, p, func(a, b plugin) int { return strings.Compare(a.name, b.name) }); !have {
				c.plugins = slices.Insert(c.plugins, i, p)
			}
			return
		}
		i := strings.LastIndexByte(name, '-')
		if i < 0 {
			return
		}
		name = name[:i]
	}
}

var typeName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`) })

// singleBlocks are the options of well-known components that are a block with
// nothing but plain values in it, where the shape of the value would make an
// attribute of them.
var singleBlocks = []string{
	// amazon
	"assume_role", "aws_polling", "deregistration_protection", "fast_launch", "metadata_options", "ami_root_device",
	"placement", "vault_aws_engine", "temporary_iam_instance_profile_policy_document", "source_ami_filter",
	"security_group_filter", "subnet_filter", "vpc_filter",
	// azure
	"plan_info", "shared_image_gallery", "shared_image_gallery_destination", "shared_gallery_destination", "spot",
	// googlecompute
	"customer_encryption_key", "image_encryption_key", "disk_encryption_key", "shielded_instance_config",
	// vsphere and vmware
	"export", "content_library_destination", "customize", "linux_options", "windows_options", "network_interface", "reattach_cdroms",
	// proxmox, openstack and others
	"efi_config", "rng0", "tpm_config", "vga", "network_interfaces_config", "external_source_image_filter",
}

// attributes are the options of well-known components that are an attribute,
// where the shape of the value would make blocks of them.
var attributes = []string{
	"json", "facter", "configuration_parameters", "vmx_data", "vmx_data_post", "labels", "metadata", "user_data_template", "grains",
}

// lists are the options of well-known components that are a list of strings,
// where templates often have a single string.
var lists = []string{
	"boot_command", "inline", "scripts", "environment_vars", "extra_arguments", "ansible_env_vars", "iso_urls", "iso_paths",
	"floppy_files", "floppy_dirs", "cd_files", "groups", "run_list", "cookbook_paths", "role_paths", "playbook_paths",
	"changes", "run_command", "only_on", "checksum_types",
}
