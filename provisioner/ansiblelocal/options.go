package ansiblelocal

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"bake/config/schema"
	"bake/internal/hostpath"
	"bake/internal/prose"
)

// Options are the arguments of an ansible-local provisioner.
type Options struct {
	// Playbook to run. It is uploaded into the staging directory.
	PlaybookFile string `hcl:"playbook_file,optional"`

	// Playbooks to run in order, instead of `playbook_file`. Those that are not in
	// `playbook_dir` are uploaded below the staging directory.
	PlaybookFiles []string `hcl:"playbook_files,optional"`

	// Directory whose contents are uploaded to the staging directory before anything else.
	PlaybookDir string `hcl:"playbook_dir,optional"`

	// Directories to upload to `playbooks` in the staging directory.
	PlaybookPaths []string `hcl:"playbook_paths,optional"`

	// Role directories to upload to `roles` in the staging directory.
	RolePaths []string `hcl:"role_paths,optional"`

	// Collection directories to upload to `collections` in the staging directory.
	CollectionPaths []string `hcl:"collection_paths,optional"`

	// Directory of group variables (`group_vars`) to upload.
	GroupVars string `hcl:"group_vars,optional"`

	// Directory of host variables (`host_vars`) to upload.
	HostVars string `hcl:"host_vars,optional"`

	// Inventory to upload and use. If it lists other hosts too, select the machine with
	// `--limit` in `extra_arguments`. Not set: an inventory of only 127.0.0.1.
	InventoryFile string `hcl:"inventory_file,optional"`

	// Inventory groups that 127.0.0.1 is in. Only for the generated inventory.
	InventoryGroups []string `hcl:"inventory_groups,optional"`

	// Requirements file of roles and collections to install on the machine before the
	// playbook runs.
	GalaxyFile string `hcl:"galaxy_file,optional"`

	// Command that installs the contents of `galaxy_file`.
	GalaxyCommand string `hcl:"galaxy_command,optional"`

	// Reinstall roles and collections that are already installed.
	GalaxyForceInstall bool `hcl:"galaxy_force_install,optional"`

	// Directory on the machine to install roles into. Not set: `galaxy_roles` in the staging
	// directory.
	GalaxyRolesPath string `hcl:"galaxy_roles_path,optional"`

	// Directory on the machine to install collections into. Not set: `galaxy_collections` in
	// the staging directory.
	GalaxyCollectionsPath string `hcl:"galaxy_collections_path,optional"`

	// Arguments for `ansible-playbook`. The machine's shell parses them, so quote them
	// accordingly. The values of `build.*` are available by name in `{{ }}`.
	ExtraArguments []string `hcl:"extra_arguments,optional,deferred"`

	// Command that runs the playbook.
	Command string `hcl:"command,optional"`

	// Directory on the machine to upload to. Not set: a new directory below
	// `/tmp/packer-provisioner-ansible-local`.
	StagingDirectory string `hcl:"staging_directory,optional"`

	// Remove the staging directory at the end. Not set: `true`, unless `staging_directory`
	// is set.
	CleanStagingDirectory *bool `hcl:"clean_staging_directory,optional"`
}

// Reads implements [schema.Reader].
func (o *Options) Reads() []string {
	return slices.Concat(
		[]string{o.PlaybookFile, o.PlaybookDir, o.GroupVars, o.HostVars, o.InventoryFile, o.GalaxyFile},
		o.PlaybookFiles, o.PlaybookPaths, o.RolePaths, o.CollectionPaths,
	)
}

func defaults() Options {
	return Options{Command: "ANSIBLE_FORCE_COLOR=1 PYTHONUNBUFFERED=1 ansible-playbook", GalaxyCommand: "ansible-galaxy"}
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	switch {
	case o.PlaybookFile != "" && len(o.PlaybookFiles) > 0:
		c.Errorf(&o.PlaybookFiles, "Two kinds of playbook", "Set playbook_file or playbook_files, not both.")
	case o.PlaybookFile == "" && len(o.PlaybookFiles) == 0 && c.Known(&o.PlaybookFiles):
		c.Errorf(&o.PlaybookFile, "No playbook", "Set playbook_file or playbook_files.")
	}
	for _, option := range []*string{&o.PlaybookFile, &o.InventoryFile, &o.GalaxyFile} {
		check(c, option, *option, false)
	}
	for _, option := range []*string{&o.PlaybookDir, &o.GroupVars, &o.HostVars} {
		check(c, option, *option, true)
	}
	for _, path := range o.PlaybookFiles {
		check(c, &o.PlaybookFiles, path, false)
	}
	for _, option := range []*[]string{&o.PlaybookPaths, &o.RolePaths, &o.CollectionPaths} {
		for _, path := range *option {
			check(c, option, path, true)
		}
	}
}

// check reports an error if the file or directory of an option does not exist.
func check(c *schema.Checker, field any, path string, dir bool) {
	if path == "" {
		return
	}
	info, err := os.Stat(path)
	if !dir {
		err = hostpath.Check(path)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		what := "file"
		if dir {
			what = "directory"
		}
		c.Errorf(field, fmt.Sprintf("No such %s", what), "%s.", prose.Missing(what, path))
	case err != nil:
		c.Errorf(field, "Not readable", "%s.", err)
	case dir && !info.IsDir():
		c.Errorf(field, "Not a directory", "%q is a file.", path)
	}
}
