package ansiblelocal_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/provisioner/ansiblelocal"
	"bake/provisioner/provisionertest"
	"bake/step"
)

// site makes a project directory, and changes to it.
func site(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"play.yml": "play", "site/deep/play.yml": "deep", "site/ansible.cfg": "cfg", "more/web/a.yml": "a", "roles/r1/tasks/main.yml": "r1",
		"group vars/all": "g", "host_vars/h": "h", "hosts": "hosts", "requirements.yml": "roles:\n- a\ncollections:\n- b\n", "old.yml": "- a\n",
		"ansible_collections/ns/n/x": "x",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	return dir
}

func TestConformance(t *testing.T) {
	site(t)
	staging := filepath.Join(t.TempDir(), "staging")
	provisionertest.Run(t, ansiblelocal.Factory(), fmt.Sprintf(`
playbook_file           = "play.yml"
command                 = "echo"
staging_directory       = %q
clean_staging_directory = true
`, staging), filepath.Dir(staging))
}

// The files on the machine, and the commands that are run there.
func TestCommands(t *testing.T) {
	for name, tt := range map[string]struct {
		body  string
		lines []string // of the machine's shell that run Ansible
		files string   // in the staging directory then
	}{
		"one": {
			`playbook_file = "play.yml"`,
			[]string{`cd STAGING && show ansible-playbook STAGING/play.yml --extra-vars 'packer_build_name=test packer_builder_type=fake' -c local -i STAGING/packer-provisioner-ansible-local`},
			"packer-provisioner-ansible-local play.yml",
		},
		"everything": {`
playbook_files    = ["site/deep/play.yml", "play.yml"]
playbook_dir      = "site"
playbook_paths    = ["more/web"]
role_paths        = ["roles/r1"]
collection_paths  = ["ansible_collections"]
group_vars        = "group vars"
host_vars         = "host_vars"
inventory_file    = "hosts"
galaxy_file       = "requirements.yml"
galaxy_roles_path = "~/my roles"
galaxy_force_install = true
extra_arguments   = ["--extra-vars", "\"id={{ .ID }} a=b\"", "-v"]
`,
			[]string{
				`cd STAGING && show-galaxy install -r STAGING/requirements.yml -p ~/my' 'roles -f`,
				`cd STAGING && show-galaxy collection install -r STAGING/requirements.yml -p STAGING/galaxy_collections -f`,
				`cd STAGING && ENV show ansible-playbook STAGING/deep/play.yml --extra-vars 'packer_build_name=test packer_builder_type=fake' --extra-vars "id=i-test a=b" -v -c local -i STAGING/hosts`,
				`cd STAGING && ENV show ansible-playbook STAGING/SITE/play.yml --extra-vars 'packer_build_name=test packer_builder_type=fake' --extra-vars "id=i-test a=b" -v -c local -i STAGING/hosts`,
			},
			"SITE/play.yml ansible.cfg collections/ansible_collections/ns/n/x deep/play.yml group_vars/all host_vars/h hosts playbooks/web/a.yml requirements.yml roles/r1/tasks/main.yml",
		},
		"old galaxy": {
			"playbook_file = \"play.yml\"\ngalaxy_file = \"old.yml\"\ninventory_groups = [\"web\", \"db\"]",
			[]string{
				`cd STAGING && show-galaxy install -r STAGING/old.yml -p STAGING/galaxy_roles`,
				`cd STAGING && ENV show ansible-playbook STAGING/play.yml --extra-vars 'packer_build_name=test packer_builder_type=fake' -c local -i STAGING/packer-provisioner-ansible-local`,
			},
			"old.yml packer-provisioner-ansible-local play.yml",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := site(t)
			m := provisionertest.NewMachine(t)
			bin := t.TempDir()
			for name, text := range map[string]string{"show": "#!/bin/sh\nfind . -type f | sort | tr '\\n' ' '\n", "show-galaxy": "#!/bin/sh\n"} {
				if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			s, log := provisionertest.Scope(t)
			body := tt.body + "\ncommand = \"show ansible-playbook\"\ngalaxy_command = \"show-galaxy\"\n"
			if err := provisionertest.New(t, ansiblelocal.Factory(), body).Provision(t.Context(), s, m.Builder()); err != nil {
				t.Fatal(err)
			}
			plain := func(text string) string {
				text = regexp.MustCompile(`/tmp/packer-provisioner-ansible-local/[0-9a-f-]+`).ReplaceAllString(text, "STAGING")
				text = regexp.MustCompile(`(?:ANSIBLE_\w+="[^"]*":\S+( ')?(' ?)?\S* )+show`).ReplaceAllString(text, "ENV show")
				return strings.ReplaceAll(text, strings.TrimPrefix(dir, "/"), "SITE")
			}
			var lines []string
			for _, call := range m.Calls() {
				if strings.Contains(call, "run cd ") {
					lines = append(lines, plain(strings.TrimPrefix(call, "run ")))
				}
			}
			if diff := cmp.Diff(tt.lines, lines); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			files := strings.ReplaceAll(plain(log.Texts(step.Output)[0]), "./", "")
			found := strings.Fields(files)
			slices.Sort(found)
			if diff := cmp.Diff(strings.Fields(tt.files), found); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if left, err := os.ReadDir("/tmp/packer-provisioner-ansible-local"); len(left) > 0 {
				t.Errorf("left on the machine: %v, %v", left, err)
			}
		})
	}
}

// Secrets among the arguments are not shown, neither here nor by Ansible.
func TestSecrets(t *testing.T) {
	site(t)
	m := provisionertest.NewMachine(t)
	s, log := provisionertest.Scope(t)
	body := "playbook_file = \"play.yml\"\ncommand = \"echo\"\nextra_arguments = [\"-v\", \"--extra-vars\", \"\\\"db_password=hunter2-{{ .ID }} user=me\\\"\"]"
	if err := provisionertest.New(t, ansiblelocal.Factory(), body).Provision(t.Context(), s, m.Builder()); err != nil {
		t.Fatal(err)
	}
	said := strings.Join(log.Texts(step.Say), "\n")
	if strings.Contains(said, "hunter2") || !strings.Contains(said, "db_password=<sensitive> user=me") || !strings.Contains(log.Texts(step.Output)[0], "db_password=hunter2-i-test user=me") {
		t.Errorf("said: %s\n%s", said, log.Texts(step.Output))
	}
}

// A directory that the template names is kept, unless it is to be deleted.
func TestStays(t *testing.T) {
	site(t)
	for clean, want := range map[string]bool{"": true, "clean_staging_directory = true": false, "clean_staging_directory = false": true} {
		m := provisionertest.NewMachine(t)
		s, _ := provisionertest.Scope(t)
		body := "playbook_file = \"play.yml\"\ncommand = \"true\"\nstaging_directory = \"~/a b\"\n" + clean
		if err := provisionertest.New(t, ansiblelocal.Factory(), body).Provision(t.Context(), s, m.Builder()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(m.Home, "a b/play.yml")); (err == nil) != want {
			t.Errorf("%q: %v", clean, err)
		}
	}
}

func TestFailure(t *testing.T) {
	site(t)
	for command, want := range map[string]string{
		"X=1 exit 3 #":           "exit ended with exit status 3",
		"X=1 no-ansible":         "there is no no-ansible on the machine (exit status 127); install Ansible there",
		"/no/such/ansible --foo": "there is no /no/such/ansible on the machine",
	} {
		m := provisionertest.NewMachine(t)
		s, _ := provisionertest.Scope(t)
		body := fmt.Sprintf("playbook_file = \"play.yml\"\ncommand = %q", command)
		err := provisionertest.New(t, ansiblelocal.Factory(), body).Provision(t.Context(), s, m.Builder())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", command, err)
		}
	}
}

func TestInvalid(t *testing.T) {
	site(t)
	const ok = "playbook_file = \"play.yml\"\n"
	for _, tt := range []struct{ body, at, want string }{
		{"", "", "Set playbook_file or playbook_files"},
		{ok + `playbook_files = ["play.yml"]`, "playbook_files", "not both"},
		{`playbook_file = "missing"`, "missing", `no file "missing"`},
		{`playbook_files = ["play.yml", "missing"]`, "missing", `no file "missing"`},
		{`playbook_file = "site"`, "site", "not a regular file but a directory"},
		{ok + `playbook_dir = "missing"`, "missing", `no directory "missing"`},
		{ok + `role_paths = ["play.yml"]`, "role_paths", "is a file"},
		{ok + `group_vars = "hosts"`, "group_vars", "is a file"},
		{ok + `galaxy_file = "missing"`, "missing", "no file"},
		{ok + `inventory_file = "missing"`, "missing", "no file"},
	} {
		provisionertest.Invalid(t, ansiblelocal.Factory(), tt.body, tt.at, tt.want)
	}
	if _, err := ansiblelocal.Factory().Docs(); err != nil {
		t.Error(err)
	}
}
