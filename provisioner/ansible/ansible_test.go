package ansible_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"bake/builder"
	"bake/communicator"
	"bake/provisioner/ansible"
	"bake/provisioner/provisionertest"
	"bake/step"
)

var update = flag.Bool("update", false, "write the golden files")

// reached returns a machine that is reached over SSH or WinRM.
type reached struct {
	*provisionertest.Machine
	communicator.Connection
	communicator.Access
}

func (r reached) Describe() communicator.Connection { return r.Connection }

// overSSH is one over SSH.
type overSSH struct{ reached }

func (m overSSH) Access() communicator.Access { return m.reached.Access }

func (m overSSH) Dial(context.Context) (net.Conn, error) { return nil, errors.New("nobody is there") }

const (
	hostKey    = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAq3KMsk6vo+52GlZL//sLMIJma0DPX7XjdVNNCv2CVl"
	privateKey = "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n"
)

// fake is an ansible-playbook, and an ansible-galaxy, that prints its arguments.
const fake = `#!/bin/sh
[ "$1" != --version ] || { echo 'ansible-playbook [core 2.14.18]'; exit 0; }
show() { [ ! -f "$1" ] || { echo "--- $1 $(stat -c %a "$1")"; cat "$1"; }; }
echo "$(basename "$0")"
for a; do printf '  %s\n' "$a"; done
env | grep '^ANSIBLE_\|^OURS' | sort
while [ $# -gt 0 ]; do
	case $1 in
	-i) show "$2"; echo "--- directory $(stat -c %a "$(dirname "$2")")" ;;
	*=*/key) show "${1#*=}" ;;
	@*) show "${1#@}" ;;
	--ssh-common-args) for f in $2; do f=${f#*UserKnownHostsFile=}; show "$f"; done ;;
	esac
	shift
done
exit ${FAKE_EXIT:-0}
`

// newKey is the text of a new private key.
func newKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

type world struct {
	dir  string
	data builder.Data
	log  *provisionertest.Log
}

// call provisions in a directory with a playbook, with the programs above.
func call(t *testing.T, w *world, conn func(*provisionertest.Machine) communicator.Communicator, connect []string, body string) error {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ansible") // short, as the paths of sockets have to be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w.dir = dir
	tmp := filepath.Join(w.dir, "tmp")
	for _, d := range []string{"bin", "tmp", "inventory", "home"} {
		if err := os.Mkdir(filepath.Join(w.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"bin/ansible-playbook": fake, "bin/ansible-galaxy": fake, "bin/sshpass": "#!/bin/sh\n",
		"play.yml": "", "requirements.yml": "roles:\n- a.b\ncollections:\n- c.d\n", "old.yml": "- a.b\n",
		"own.cfg":  "[ssh_connection]\nssh_common_args = -o ServerAliveInterval=9\nssh_extra_args = -o Compression=yes\n",
		"host_key": newKey(t), "id.pub": hostKey + "\n",
	} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(w.dir)
	m := provisionertest.NewMachine(t)
	t.Setenv("TMPDIR", tmp)
	t.Setenv("HOME", filepath.Join(dir, "home"))
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "ANSIBLE_") {
			os.Unsetenv(name)
		}
	}
	t.Setenv("PATH", filepath.Join(w.dir, "bin")+":"+os.Getenv("PATH"))
	s, log := provisionertest.Scope(t)
	w.log = log
	builderMachine := m.Builder()
	builderMachine.Communicator = conn(m)
	builderMachine.Data = builder.Data{"ID": builder.Text("i-test")}
	for k, v := range w.data {
		builderMachine.Data[k] = v
	}
	err = provisionertest.New(t, ansible.Factory(connect), body).Provision(t.Context(), s, builderMachine)
	left, _ := os.ReadDir(tmp)
	for _, l := range left {
		if !strings.Contains(body, "keep_inventory_file") {
			t.Errorf("left behind: %s", l.Name())
		}
	}
	return err
}

// said returns all messages and output, without the variable parts.
func (w *world) said() string {
	text := strings.Join(append(w.log.Texts(step.Say), w.log.Texts(step.Warning)...), "\n") + "\n" + strings.Join(w.log.Texts(step.Output), "\n") + "\n"
	text = strings.ReplaceAll(text, w.dir, "DIR")
	for pattern, with := range map[string]string{
		`bake-ansible-[A-Z0-9]+`:                                "bake-ansible-N",
		`packer-provisioner-ansible-?\d+`:                       "packer-provisioner-ansible-N",
		`ansible_port=\d{4,5}`:                                  "ansible_port=PORT",
		`\[127.0.0.1\]:\d+ (\S+) \S+`:                           "[127.0.0.1]:PORT $1 KEY",
		`(?s)-----BEGIN OPENSSH.*?END OPENSSH PRIVATE KEY-----`: "A NEW KEY",
	} {
		text = regexp.MustCompile(pattern).ReplaceAllString(text, with)
	}
	return text
}

// Ansible's arguments, environment and files.
func TestCommandLine(t *testing.T) {
	overSSHWith := func(a communicator.Access) func(*provisionertest.Machine) communicator.Communicator {
		return func(m *provisionertest.Machine) communicator.Communicator {
			return overSSH{reached{m, communicator.Connection{Host: "192.0.2.1", Port: 22, User: "admin", Password: "s3cr3t-password"}, a}}
		}
	}
	winrm := func(c communicator.Connection) func(*provisionertest.Machine) communicator.Communicator {
		c.Host, c.Port, c.User, c.Password, c.WinRM = "192.0.2.1", 5986, "Administrator", "s3cr3t-password", true
		return func(m *provisionertest.Machine) communicator.Communicator { return reached{Machine: m, Connection: c} }
	}
	other := func(m *provisionertest.Machine) communicator.Communicator { return m }
	known := communicator.Access{Port: 22, Direct: true, HostKeys: []string{hostKey}}
	key := builder.Data{"SSHPrivateKey": builder.Secret(privateKey)}
	connect := []string{"/opt/my bake/bake", "nc", "%h", "%p"}
	play := "playbook_file = \"play.yml\"\n"
	for name, tt := range map[string]struct {
		conn func(*provisionertest.Machine) communicator.Communicator
		data builder.Data
		body string
	}{
		"temporary-key": {overSSHWith(known), key, ""},
		"own-key":       {overSSHWith(communicator.Access{Direct: true, KeyFile: "/home/me/my keys/id", CertFile: "/home/me/my keys/id-cert.pub"}), key, ""},
		"agent":         {overSSHWith(communicator.Access{Direct: true, Agent: true, HostKeys: []string{hostKey}}), nil, ""},
		"agent-args":    {overSSHWith(communicator.Access{Direct: true, Agent: true, HostKeys: []string{hostKey}}), nil, `ansible_ssh_extra_args = ["-o ForwardAgent=yes"]`},
		"password":      {overSSHWith(known), nil, ""},
		"not-dialed":    {overSSHWith(communicator.Access{HostKeys: []string{hostKey}}), key, ""},
		"port": {func(m *provisionertest.Machine) communicator.Communicator {
			return overSSH{reached{m, communicator.Connection{Host: "localhost", User: "admin"}, communicator.Access{Port: 2222, HostKeys: []string{hostKey}}}}
		}, key, ""},
		"groups": {overSSHWith(known), key, `
host_alias   = "web1"
groups       = ["web", "all_web"]
empty_groups = ["db"]
`},
		"template": {overSSHWith(known), key, `
inventory_directory     = "inventory"
inventory_file_template = "{{ .HostAlias }} ansible_host={{ .Host }} id={{ .ID }} ansible_port={{.Port}} ansible_user={{.User}}"
groups                  = ["web"]
`},
		"inventory-file": {overSSHWith(known), key, `
inventory_file  = "hosts,"
extra_arguments = ["--limit", "web"]
`},
		"extra": {overSSHWith(known), key, `
extra_arguments        = ["--extra-vars", "db_password=hunter2-hunter2 id={{ .ID }}", "--ssh-common-args", "-o Compression=yes", "-vvv", "--vault-password-file=play.yml", "--tags", "a,b"]
ansible_env_vars       = ["ANSIBLE_HOST_KEY_CHECKING=False", "ANSIBLE_SSH_ARGS='-o ForwardAgent=yes'", "OURS={{ build ` + "`ID`" + ` }}"]
ansible_ssh_extra_args = ["-o IdentitiesOnly=no", "-o 'LogLevel=ERROR'"]
use_sftp               = true
`},
		"own-common-args": {overSSHWith(known), key, `extra_arguments = ["-e", "ansible_ssh_common_args=-oLogLevel=ERROR"]`},
		"config":          {overSSHWith(known), key, `ansible_env_vars = ["ANSIBLE_CONFIG=own.cfg"]`},
		"config-extra": {overSSHWith(known), key, `
extra_arguments        = ["--ssh-common-args", "-o Compression=yes"]
ansible_ssh_extra_args = ["-o LogLevel=ERROR"]
ansible_env_vars       = ["ANSIBLE_CONFIG=own.cfg"]
`},
		"galaxy": {overSSHWith(known), key, `
galaxy_file            = "requirements.yml"
roles_path             = "roles"
collections_path       = "collections"
galaxy_force_install   = true
galaxy_force_with_deps = true
`},
		"galaxy-old":   {overSSHWith(known), key, "galaxy_file = \"old.yml\"\nuse_sftp = false"},
		"winrm":        {winrm(communicator.Connection{TLS: true, Insecure: true, NTLM: true}), nil, ""},
		"winrm-http":   {winrm(communicator.Connection{}), nil, "ansible_winrm_use_http = true"},
		"winrm-own":    {winrm(communicator.Connection{}), nil, `extra_arguments = ["-e", "ansible_password=my-own-pass"]`},
		"proxy":        {overSSHWith(known), key, "use_proxy = true"},
		"proxy-user":   {overSSHWith(known), key, `user = "root"`},
		"proxy-keys":   {overSSHWith(known), key, "use_proxy = true\nssh_host_key_file = \"host_key\"\nssh_authorized_key_file = \"id.pub\"\nansible_proxy_key_type = \"rsa\""},
		"proxy-only":   {other, nil, "use_proxy = false"},
		"user-refused": {overSSHWith(known), key, "user = \"root\"\nuse_proxy = false"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{data: tt.data}
			if err := call(t, w, tt.conn, connect, play+tt.body); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join(original, "testdata", name+".txt")
			got := w.said()
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// original is the directory in which the test was started.
var original = func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	return dir
}()

// Without anything to connect with, and for a password without sshpass, Ansible goes
// through bake.
func TestNoWay(t *testing.T) {
	w := &world{data: builder.Data{"SSHPrivateKey": builder.Secret(privateKey)}}
	conn := func(m *provisionertest.Machine) communicator.Communicator {
		return overSSH{reached{m, communicator.Connection{Host: "192.0.2.1", Port: 22, User: "admin"}, communicator.Access{}}}
	}
	if err := call(t, w, conn, nil, `playbook_file = "play.yml"`); err != nil || !strings.Contains(w.said(), "through bake: the machine can be reached from here only") {
		t.Errorf("got %v, %s", err, w.said())
	}
}

// The inventory is kept on request, in a directory where others cannot write.
func TestKeptInventory(t *testing.T) {
	w := &world{}
	conn := func(m *provisionertest.Machine) communicator.Communicator {
		return overSSH{reached{m, communicator.Connection{Host: "192.0.2.1", Port: 22, User: "admin"}, communicator.Access{Direct: true}}}
	}
	if err := call(t, w, conn, nil, "playbook_file = \"play.yml\"\nkeep_inventory_file = true"); err != nil {
		t.Fatal(err)
	}
	found, _ := filepath.Glob(filepath.Join(w.dir, "tmp", "*", "packer-provisioner-ansible*"))
	if len(found) != 1 {
		t.Fatalf("found %v", found)
	}
	if text, err := os.ReadFile(found[0]); err != nil || string(text) != "default ansible_host=192.0.2.1 ansible_user=admin ansible_port=22\n" {
		t.Errorf("got %q, %v", text, err)
	}
	if info, err := os.Stat(filepath.Dir(found[0])); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("got %v, %v", info, err)
	}
}

// A failing playbook fails the build, and a cancelled one ends with all its child processes.
func TestFailure(t *testing.T) {
	conn := func(m *provisionertest.Machine) communicator.Communicator {
		return overSSH{reached{m, communicator.Connection{Host: "192.0.2.1", Port: 22, User: "admin"}, communicator.Access{Direct: true}}}
	}
	w := &world{}
	err := call(t, w, conn, nil, "playbook_file = \"play.yml\"\nansible_env_vars = [\"FAKE_EXIT=2\"]")
	if err == nil || err.Error() != "ansible-playbook ended with exit status 2 (a task failed)" {
		t.Errorf("got %v", err)
	}

	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	program := filepath.Join(dir, "ansible-playbook")
	if err := os.WriteFile(program, []byte(fmt.Sprintf("#!/bin/sh\nsleep 300 &\necho $! >%s.new && mv %s.new %s\nwait\n", pid, pid, pid)), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	go func() {
		for {
			if _, err := os.Stat(pid); err == nil {
				cancel(why)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	s, _ := provisionertest.Scope(t)
	m := provisionertest.NewMachine(t)
	machine := m.Builder()
	machine.Communicator = conn(m)
	p := provisionertest.New(t, ansible.Factory(nil), fmt.Sprintf("playbook_file = %q\ncommand = %q", program, program))
	if err := p.Provision(ctx, s, machine); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("what the playbook has started is still there")
		}
	}
}

func TestInvalid(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "play.yml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ok := fmt.Sprintf("playbook_file = %q\nskip_version_check = true\n", file)
	for _, tt := range []struct{ body, at, want string }{
		{"", "", "playbook_file"},
		{"playbook_file = \"missing.yml\"\nskip_version_check = true", "missing.yml", `no file "missing.yml"`},
		{fmt.Sprintf("playbook_file = %q\nskip_version_check = true", dir), "playbook_file", "not a regular file but a directory"},
		{ok + `galaxy_file = "missing"`, "missing", "no file"},
		{ok + `inventory_directory = "missing"`, "missing", "no directory"},
		{ok + fmt.Sprintf("inventory_directory = %q", file), "inventory_directory", "is a file"},
		{ok + `local_port = 70000`, "local_port", "1 to 65535"},
		{ok + `ansible_proxy_key_type = "dsa"`, "dsa", "not one of"},
		{ok + `ansible_env_vars = ["X"]`, "ansible_env_vars", "NAME=value"},
	} {
		provisionertest.Invalid(t, ansible.Factory(nil), tt.body, tt.at, tt.want)
	}
	// A missing program does not prevent checking a template.
	for _, tt := range []struct{ body, want string }{
		{"command = \"no-such-ansible\"", "or skip_version_check = true"},
		{"command = \"/no/such/ansible\"", "/no/such/ansible cannot be run"},
		{"command = \"sh\"\ngalaxy_command = \"no-such-galaxy\"\ngalaxy_file = \"" + file + "\"", "There is no no-such-galaxy in PATH"},
	} {
		in := provisionertest.Input(t, fmt.Sprintf("playbook_file = %q\n", file)+tt.body, nil)
		diags := ansible.Factory(nil).Check(in)
		if diags.HasErrors() || len(diags) != 1 || !strings.Contains(diags[0].Detail, tt.want) {
			t.Errorf("%s: got %v", tt.body, diags)
		}
		in.Build.Run = "run"
		if diags := ansible.Factory(nil).Check(in); !diags.HasErrors() || !strings.Contains(diags[0].Detail, tt.want) {
			t.Errorf("%s: got %v", tt.body, diags)
		}
	}
	if _, err := ansible.Factory(nil).Docs(); err != nil {
		t.Error(err)
	}
}
