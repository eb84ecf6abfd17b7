package ansible

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"bake/config/schema"
	"bake/internal/hostpath"
	"bake/internal/prose"
)

// Options are the arguments of an ansible provisioner.
type Options struct {
	// Playbook to run.
	PlaybookFile string `hcl:"playbook_file"`

	// Program that runs the playbook: a path, or a name to look up in PATH. It is run
	// without a shell; to activate a virtual environment first, for example, use a wrapper
	// script.
	Command string `hcl:"command,optional"`

	// Arguments for `ansible-playbook`, one per element, without shell quoting. The values
	// of `build.*` are available by name in `{{ }}`. Values of variables whose names
	// contain `password` or `secret` are not logged.
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

	// Directory for the generated inventory, such as one with `group_vars` and
	// `host_vars`. Not set: a temporary directory.
	InventoryDirectory string `hcl:"inventory_directory,optional"`

	// The machine's line of the generated inventory. `{{.HostAlias}}`, `{{.Host}}`, `{{.Port}}` and
	// `{{.User}}` are the machine's name and where Ansible connects; the values of `build.*` are
	// available by name. Not set: `{{ .HostAlias }} ansible_host={{ .Host }} ansible_user={{ .User
	// }} ansible_port={{ .Port }}`, and for WinRM the variables of that connection.
	InventoryFileTemplate string `hcl:"inventory_file_template,optional,deferred"`

	// Do not delete the generated inventory.
	KeepInventoryFile bool `hcl:"keep_inventory_file,optional"`

	// Requirements file of roles and collections to install before the playbook runs.
	GalaxyFile string `hcl:"galaxy_file,optional"`

	// Program that installs the contents of `galaxy_file`.
	GalaxyCommand string `hcl:"galaxy_command,optional"`

	// Reinstall roles and collections that are already installed.
	GalaxyForceInstall bool `hcl:"galaxy_force_install,optional"`

	// Reinstall roles and collections that are already installed, and their dependencies.
	GalaxyForceWithDeps bool `hcl:"galaxy_force_with_deps,optional"`

	// Directory to install roles into. Not set: as Ansible is configured.
	RolesPath string `hcl:"roles_path,optional"`

	// Directory to install collections into. Not set: as Ansible is configured.
	CollectionsPath string `hcl:"collections_path,optional"`

	// Do not check in advance that Ansible is installed on this computer, for example
	// because the build installs it.
	SkipVersionCheck bool `hcl:"skip_version_check,optional"`

	// Make Ansible connect to an SSH server in bake, which forwards everything to the
	// machine. If false, Ansible connects to the machine directly. Not set: Ansible
	// connects directly whenever it can log in that way.
	UseProxy *bool `hcl:"use_proxy,optional"`

	// Port for the SSH server in bake to listen on; if it is in use, one of the nine ports
	// after it. When this is set, Ansible connects to that server unless `use_proxy` is
	// false. Not set: any free port.
	LocalPort int `hcl:"local_port,optional"`

	// File with the private host key of the SSH server in bake. Not set: a new key.
	SSHHostKeyFile string `hcl:"ssh_host_key_file,optional"`

	// File with the public key that may log in to the SSH server in bake; Ansible must
	// have the private key. Not set: a new key.
	SSHAuthorizedKeyFile string `hcl:"ssh_authorized_key_file,optional"`

	// Type of new keys for the SSH server in bake: `ECDSA` or `RSA`.
	AnsibleProxyKeyType KeyType `hcl:"ansible_proxy_key_type,optional"`

	// Command on the machine that serves SFTP, when Ansible connects to the SSH server in
	// bake. Not set: OpenSSH's SFTP server, wherever it is installed.
	SFTPCommand string `hcl:"sftp_command,optional"`

	// Transfer files only by SFTP (`true`) or only by SCP (`false`). Not set: as Ansible
	// is configured.
	UseSFTP *bool `hcl:"use_sftp,optional"`

	// Make Ansible use HTTP for WinRM. Not set: the protocol that the communicator uses.
	AnsibleWinRMUseHTTP bool `hcl:"ansible_winrm_use_http,optional"`
}

// beside lists the directories, and the configuration file, that Ansible looks for next
// to a playbook.
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

// KeyType is a type of SSH key.
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
		switch err := hostpath.Check(*file); {
		case errors.Is(err, os.ErrNotExist):
			c.Errorf(file, "No such file", "%s.", prose.Missing("file", *file))
		case err != nil:
			c.Errorf(file, "Not readable", "%s.", err)
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

// checkInstalled warns about a program that is not installed.
func (o *Options) checkInstalled(c *schema.Checker, field any, name string) {
	if _, err := lookUp(name); err != nil {
		c.Missing(field, "Ansible is not installed here", "%s.", notInstalled(name, err))
	}
}
