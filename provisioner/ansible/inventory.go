package ansible

import (
	"fmt"
	"os"
	"strings"
)

// The entry for a machine in a generated inventory, unless the template sets one.
const (
	sshLine   = "{{ .HostAlias }} ansible_host={{ .Host }} ansible_user={{ .User }} ansible_port={{ .Port }}\n"
	winrmLine = "{{ .HostAlias }} ansible_host={{ .Host }} ansible_connection=winrm ansible_winrm_transport=%s ansible_shell_type=powershell ansible_user={{ .User }} ansible_port={{ .Port }}%s\n"
)

// hostLine returns the machine's line of the inventory, with {{ }} unrendered.
func (r *run) hostLine() string {
	switch {
	case r.InventoryFileTemplate != "":
		return r.InventoryFileTemplate
	case !r.to.winrm:
		return sshLine
	}
	transport, more := "basic", ""
	if r.to.NTLM {
		transport = "ntlm"
	}
	switch {
	case r.AnsibleWinRMUseHTTP: // passed as an argument
	case r.to.TLS:
		more += " ansible_winrm_scheme=https"
	default:
		more += " ansible_winrm_scheme=http"
	}
	if r.to.Insecure {
		more += " ansible_winrm_server_cert_validation=ignore"
	}
	return fmt.Sprintf(winrmLine, transport, more)
}

// inventory returns the text of the generated inventory.
func (r *run) inventory() (string, error) {
	host, err := r.render(r.hostLine(), map[string]any{
		"HostAlias": r.HostAlias, "Host": r.to.host, "Port": r.to.port, "User": r.to.user,
	})
	if err != nil {
		return "", fmt.Errorf("inventory_file_template: %w", err)
	}
	if !strings.HasSuffix(host, "\n") {
		host += "\n"
	}
	var b strings.Builder
	b.WriteString(host)
	for _, group := range r.Groups {
		fmt.Fprintf(&b, "[%s]\n%s", group, host)
	}
	for _, group := range r.EmptyGroups {
		fmt.Fprintf(&b, "[%s]\n", group)
	}
	return b.String(), nil
}

// writeInventory writes the generated inventory and returns its path, which remove deletes.
// The inventory is in a directory that other users cannot write to, because Ansible trusts
// group_vars in the same directory.
func (r *run) writeInventory() (path string, remove func(), err error) {
	text, err := r.inventory()
	if err != nil {
		return "", nil, err
	}
	dir := r.InventoryDirectory
	if dir == "" {
		dir = r.dir
		if r.KeepInventoryFile {
			if dir, err = os.MkdirTemp("", "packer-provisioner-ansible-"); err != nil {
				return "", nil, err
			}
		}
	}
	f, err := os.CreateTemp(dir, "packer-provisioner-ansible*")
	if err != nil {
		return "", nil, err
	}
	path = f.Name()
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
		return "", nil, err
	}
	if r.KeepInventoryFile {
		return path, func() {}, nil
	}
	return path, func() { _ = os.Remove(path) }, nil
}
