package upgrade

import (
	"slices"
	"sort"
	"strings"

	"bake/internal/knownplugins"
	"bake/internal/lazyregexp"
)

// requirePlugin notes the plugin that a component comes with.
func (c *converter) requirePlugin(component string) {
	p, ok := knownplugins.Of(component)
	if !ok {
		return
	}
	if i, have := sort.Find(len(c.plugins), func(i int) int { return strings.Compare(p.Name, c.plugins[i].Name) }); !have {
		c.plugins = slices.Insert(c.plugins, i, p)
	}
}

var typeName = lazyregexp.New(`^[A-Za-z][A-Za-z0-9_-]*$`)

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
