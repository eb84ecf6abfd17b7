package ansible

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"bake/config/schema"
	"bake/internal/prose"
)

// Options are the arguments of an ansible provisioner.
type Options struct {
	// Playbook to run.
	PlaybookFile string `hcl:"playbook_file"`

	// Program that runs the playbook: a path, or a name to be found in PATH. It is not
	// passed through a shell; to set up a virtual environment first, for example, use a
	// script that does so.
	Command string `hcl:"command,optional"`

	// Arguments for `ansible-playbook`, each an element of its own, without quotes for a
	// shell. The values of `build.*` are available by name in `{{ }}`. The value of a
	// variable whose name contains `password` or `secret` is not shown.
	ExtraArguments []string `hcl:"extra_arguments,optional,deferred"`

	// Environment variables for Ansible, as `NAME=value`. The values of `build.*` are
	// available by name in `{{ }}`.
	AnsibleEnvVars []string `hcl:"ansible_env_vars,optional,deferred"`

	// Arguments for `ansible-playbook --ssh-extra-args`. Not set: `-o IdentitiesOnly=yes`,
	// if there is a key.
	AnsibleSSHExtraArgs []string `hcl:"ansible_ssh_extra_args,optional"`

	// User that Ansible logs in as. Not set: the user of the communicator.
	User string `hcl:"user,optional"`

	// Name of the machine in the inventory.
	HostAlias string `hcl:"host_alias,optional"`

	// Groups of the inventory that the machine is in.
	Groups []string `hcl:"groups,optional"`

	// Groups to add to the inventory without any hosts.
	EmptyGroups []string `hcl:"empty_groups,optional"`

	// Inventory to use instead of a generated one.
	InventoryFile string `hcl:"inventory_file,optional"`

	// Directory for the generated inventory, such as one that has `group_vars` and
	// `host_vars`. Not set: a temporary one.
	InventoryDirectory string `hcl:"inventory_directory,optional"`

	// Line of the generated inventory for the machine. `{{.HostAlias}}`, `{{.Host}}`,
	// `{{.Port}}` and `{{.User}}` say how Ansible reaches it; the values of `build.*` are
	// available by name. Not set:
	// `{{ .HostAlias }} ansible_host={{ .Host }} ansible_user={{ .User }} ansible_port={{ .Port }}`,
	// and for WinRM the variables of that connection.
	InventoryFileTemplate string `hcl:"inventory_file_template,optional,deferred"`

	// Do not delete the generated inventory.
	KeepInventoryFile bool `hcl:"keep_inventory_file,optional"`

	// Requirements file whose roles and collections are installed before the playbook runs.
	GalaxyFile string `hcl:"galaxy_file,optional"`

	// Program that installs what is in `galaxy_file`.
	GalaxyCommand string `hcl:"galaxy_command,optional"`

	// Install roles and collections even if they are there already.
	GalaxyForceInstall bool `hcl:"galaxy_force_install,optional"`

	// Install roles and collections, and what they depend on, even if they are there already.
	GalaxyForceWithDeps bool `hcl:"galaxy_force_with_deps,optional"`

	// Directory to install roles into. Not set: as Ansible is configured.
	RolesPath string `hcl:"roles_path,optional"`

	// Directory to install collections into. Not set: as Ansible is configured.
	CollectionsPath string `hcl:"collections_path,optional"`

	// Do not check beforehand that Ansible is installed here, for example because the build
	// installs it.
	SkipVersionCheck bool `hcl:"skip_version_check,optional"`

	// Let Ansible connect to an SSH server in bake, which passes everything on to the
	// machine. If false, Ansible connects to the machine itself. Not set: Ansible connects
	// to the machine itself wherever it can log in there.
	UseProxy *bool `hcl:"use_proxy,optional"`

	// Port that the SSH server in bake listens on, or one of the nine after it if it is in
	// use. Ansible then connects to that server unless `use_proxy` is false. Not set: any.
	LocalPort int `hcl:"local_port,optional"`

	// Private key that the SSH server in bake identifies itself with. Not set: a new one.
	SSHHostKeyFile string `hcl:"ssh_host_key_file,optional"`

	// Public key that may log in to the SSH server in bake; Ansible must have the private
	// key. Not set: a new key.
	SSHAuthorizedKeyFile string `hcl:"ssh_authorized_key_file,optional"`

	// Type of the new keys of the SSH server in bake: `ECDSA` or `RSA`.
	AnsibleProxyKeyType KeyType `hcl:"ansible_proxy_key_type,optional"`

	// Command on the machine that serves SFTP, through the SSH server in bake. Not set:
	// OpenSSH's, wherever that is.
	SFTPCommand string `hcl:"sftp_command,optional"`

	// Copy files by SFTP only, or if false by SCP only. Not set: as Ansible is configured.
	UseSFTP *bool `hcl:"use_sftp,optional"`

	// Let Ansible use HTTP for WinRM. Not set: whatever the communicator uses.
	AnsibleWinRMUseHTTP bool `hcl:"ansible_winrm_use_http,optional"`
}

// beside are the directories that Ansible looks for next to a playbook, and its
// configuration file.
var beside = []string{
	"roles", "group_vars", "host_vars", "vars", "tasks", "handlers", "files", "templates", "library", "collections",
	"module_utils", "action_plugins", "filter_plugins", "lookup_plugins", "callback_plugins", "test_plugins", "vars_plugins", "ansible.cfg",
}

// Reads implements [schema.Reader].
func (o *Options) Reads() []string {
	all := []string{o.PlaybookFile, o.InventoryFile, o.InventoryDirectory, o.GalaxyFile}
	if o.PlaybookFile != "" {
		for _, name := range beside {
			all = append(all, filepath.Join(filepath.Dir(o.PlaybookFile), name))
		}
	}
	return all
}

func defaults() Options {
	return Options{Command: "ansible-playbook", GalaxyCommand: "ansible-galaxy", HostAlias: "default", AnsibleProxyKeyType: ECDSA}
}

// KeyType is a type of key.
type KeyType string

// The types.
const (
	ECDSA KeyType = "ECDSA"
	RSA   KeyType = "RSA"
)

// Choices implements [schema.Choices].
func (KeyType) Choices() []string { return []string{string(ECDSA), string(RSA)} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *KeyType) UnmarshalText(b []byte) error {
	return schema.ParseChoice(k, []byte(strings.ToUpper(string(b))), k.Choices())
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	if o.PlaybookFile == "" {
		c.Errorf(&o.PlaybookFile, "No playbook", "playbook_file cannot be empty.")
	}
	for _, file := range []*string{&o.PlaybookFile, &o.GalaxyFile, &o.SSHHostKeyFile, &o.SSHAuthorizedKeyFile} {
		if *file == "" {
			continue
		}
		info, err := os.Stat(*file)
		switch {
		case err != nil:
			c.Errorf(file, "No such file", "%s.", missing("file", *file, err))
		case info.IsDir():
			c.Errorf(file, "Not a file", "%q is a directory.", *file)
		}
	}
	if dir := o.InventoryDirectory; dir != "" {
		if info, err := os.Stat(dir); err != nil {
			c.Errorf(&o.InventoryDirectory, "No such directory", "%s.", missing("directory", dir, err))
		} else if !info.IsDir() {
			c.Errorf(&o.InventoryDirectory, "Not a directory", "%q is a file.", dir)
		}
	}
	if o.LocalPort < 0 || o.LocalPort >= 1<<16 {
		c.Errorf(&o.LocalPort, "Not a TCP port", "local_port is %d; ports go from 1 to 65535.", o.LocalPort)
	}
	for _, env := range o.AnsibleEnvVars {
		if name, _, ok := strings.Cut(env, "="); !ok || name == "" {
			c.Errorf(&o.AnsibleEnvVars, "Not an environment variable", "%q must be NAME=value.", env)
		}
	}
	if o.SkipVersionCheck {
		return
	}
	o.checkInstalled(c, &o.Command, o.Command)
	if o.GalaxyFile != "" {
		o.checkInstalled(c, &o.GalaxyCommand, o.GalaxyCommand)
	}
}

// missing returns the message that a file or directory of the user does not exist.
func missing(what, path string, err error) string {
	if !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return prose.Missing(what, path)
}

// checkInstalled complains about a program that is not here.
func (o *Options) checkInstalled(c *schema.Checker, field any, name string) {
	if _, err := lookUp(name); err != nil {
		c.Missing(field, "Ansible is not installed here", "%s.", notInstalled(name, err))
	}
}
