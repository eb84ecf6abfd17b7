package ansible

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"bake/internal/envvar"
	"bake/internal/lazyregexp"
	"bake/internal/shellquote"
)

// arguments returns the arguments of ansible-playbook.
func (r *run) arguments(inventory string) ([]string, error) {
	playbook, err := filepath.Abs(r.PlaybookFile)
	if err != nil {
		return nil, err
	}
	args := []string{
		"-e", fmt.Sprintf("packer_build_name=%q", r.scope.SourceName),
		"-e", "packer_builder_type=" + r.scope.SourceType,
	}
	if addr := r.machine.Data["PackerHTTPAddr"]; addr.Text != "" && !addr.Absent {
		args = append(args, "-e", "packer_http_addr="+addr.Text)
	}
	extra := slices.Clone(r.extra)
	common := slices.Clone(r.to.sshArgs)
	if !r.to.winrm {
		own := quote(r.AnsibleSSHExtraArgs)
		if own == "" && r.to.keyFile != "" {
			const only = "-o IdentitiesOnly=yes"
			own = strings.TrimSpace(r.users("ssh_extra_args") + " " + quote([]string{only}))
			common = append(common, only) // sftp and scp do not get the extra arguments
		}
		if own != "" {
			args = append(args, "--ssh-extra-args", own)
		}
	}
	if len(common) > 0 {
		var users string
		users, extra = cutFlag(extra, "--ssh-common-args")
		users = cmp.Or(users, r.users("ssh_common_args"))
		args = append(args, "--ssh-common-args", strings.TrimSpace(users+" "+shellquote.Join(common...)))
	}
	args = append(args, extra...)
	if r.AnsibleWinRMUseHTTP && !mentions(extra, "ansible_winrm_scheme") {
		args = append(args, "-e", "ansible_winrm_scheme=http")
	}
	users := mentions(extra, "ansible_password") || mentions(extra, "ansible_ssh_pass")
	switch {
	case users:
	case r.to.passwordFile != "":
		args = append(args, "-e", "@"+r.to.passwordFile)
	case r.to.keyFile != "":
		// A variable, because inventories can override --private-key.
		args = append(args, "-e", "ansible_ssh_private_key_file="+quoteValue(r.to.keyFile))
	}
	return append(args, "-i", inventory, playbook), nil
}

// users returns the value of a connection option that the user has set in the
// environment or in ansible.cfg. The command line would override it.
func (r *run) users(option string) string {
	env := slices.Concat(r.scope.Run.Env, r.env)
	return cmp.Or(envvar.Get(env, "ANSIBLE_"+strings.ToUpper(option)), configured(env, option))
}

// quote joins arguments for SSH into one string, which Ansible splits like a shell.
// Arguments that already contain quotes are not changed.
func quote(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if !strings.ContainsAny(arg, `'"`) {
			words[i] = shellquote.Join(arg)
		}
	}
	return strings.Join(words, " ")
}

// quoteValue quotes the value in an argument of the form name=value. Ansible splits a list
// of these at spaces.
func quoteValue(value string) string {
	if strings.ContainsAny(value, " \t'\"\\") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
	}
	return value
}

// cutFlag removes a flag from arguments, and returns its value; the last value if the flag
// is repeated.
func cutFlag(args []string, flag string) (value string, rest []string) {
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == flag && i+1 < len(args):
			value = args[i+1]
			i++
		case strings.HasPrefix(args[i], flag+"="):
			value = strings.TrimPrefix(args[i], flag+"=")
		default:
			rest = append(rest, args[i])
		}
	}
	return value, rest
}

// mentions reports whether a variable is set among arguments.
func mentions(args []string, variable string) bool {
	word := regexp.MustCompile(`(?:^|[^\w])` + regexp.QuoteMeta(variable) + `(?:$|[^\w])`)
	return slices.ContainsFunc(args, word.MatchString)
}

// environment returns Ansible's environment. Variables of the template take precedence.
func (r *run) environment() []string {
	env := slices.Concat(r.scope.Run.Env, r.env)
	users := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			return slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		})
	}
	add := func(name, value string) { env = append(env, name+"="+value) }
	if !users("PYTHONUNBUFFERED") {
		add("PYTHONUNBUFFERED", "1")
	}
	if !users("ANSIBLE_LOCAL_TEMP") {
		add("ANSIBLE_LOCAL_TEMP", r.file("tmp")) // so that a killed process leaves no files
	}
	if !users("ANSIBLE_SSH_CONTROL_PATH_DIR", "ANSIBLE_SSH_CONTROL_PATH") {
		add("ANSIBLE_SSH_CONTROL_PATH_DIR", r.controlDir())
	}
	if !r.to.winrm && !r.to.hostKeyKnown && !users("ANSIBLE_HOST_KEY_CHECKING", "ANSIBLE_SSH_HOST_KEY_CHECKING") {
		add("ANSIBLE_HOST_KEY_CHECKING", "False")
	}
	if r.UseSFTP != nil && !users("ANSIBLE_SSH_TRANSFER_METHOD", "ANSIBLE_SCP_IF_SSH") {
		if *r.UseSFTP {
			add("ANSIBLE_SSH_TRANSFER_METHOD", "sftp")
		} else {
			add("ANSIBLE_SSH_TRANSFER_METHOD", "scp")
		}
	}
	return env
}

// galaxy returns the command lines of ansible-galaxy for a requirements file.
func (o *Options) galaxy(text []byte) (lines [][]string) {
	file := filepath.ToSlash(o.GalaxyFile)
	line := func(words []string, dir string) {
		words = append(words, "-r", file)
		if o.GalaxyForceInstall {
			words = append(words, "-f")
		}
		if o.GalaxyForceWithDeps {
			words = append(words, "--force-with-deps")
		}
		if dir != "" {
			words = append(words, "-p", filepath.ToSlash(dir))
		}
		lines = append(lines, words)
	}
	collections := hasCollections.Get().Match(text)
	if hasRoles.Get().Match(text) || !collections { // the older format is a list of roles
		line([]string{"install"}, o.RolesPath)
	}
	if collections {
		line([]string{"collection", "install"}, o.CollectionsPath)
	}
	return lines
}

var (
	hasRoles       = lazyregexp.New(`(?m)^roles:`)
	hasCollections = lazyregexp.New(`(?m)^collections:`)
)
