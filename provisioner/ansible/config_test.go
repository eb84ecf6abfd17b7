package ansible

import (
	"os"
	"path/filepath"
	"testing"
)

// The values are those of Ansible 2.14 ("ansible-config dump -t connection").
func TestINI(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"[ssh_connection]\nssh_common_args=-o A=b":                                  "-o A=b",
		"[ssh_connection]\nSSH_Common_Args : -o A=b ; why\n":                        "-o A=b",
		"[ssh_connection]\nssh_common_args = '-o A=b'\n":                            "-o A=b",
		"[ssh_connection]\nssh_common_args = -o 'A=b' # no comment\n":               "-o 'A=b' # no comment",
		"[ssh_connection]\r\nssh_common_args = -o A=b;c\r\n":                        "-o A=b;c",
		"[ssh_connection]\nssh_common_args = -o A=b\n  # x\n  -o C=d\npipelining=1": "-o A=b\n-o C=d",
		"[defaults]\nssh_common_args = -o A=b\n[ssh_connection]\n":                  "",
		"[ssh_connection]\n;ssh_common_args = x\nssh_extra_args = -v\n":             "",
		"[ssh_connection]\nssh_common_args":                                         "",
	} {
		if got := iniValue(text, "ssh_connection", "ssh_common_args"); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"cwd/ansible.cfg", "home/.ansible.cfg", "named/ansible.cfg", "file.cfg", "home/x.cfg", "open/ansible.cfg"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "open"), 0o777); err != nil {
		t.Fatal(err)
	}
	home := "HOME=" + filepath.Join(dir, "home")
	for _, tt := range []struct {
		cwd, named, want string
	}{
		{"cwd", "", "ansible.cfg"},
		{"home", "", filepath.Join(dir, "home/.ansible.cfg")},
		{"open", "", filepath.Join(dir, "home/.ansible.cfg")},
		{"cwd", filepath.Join(dir, "named"), filepath.Join(dir, "named/ansible.cfg")},
		{"cwd", filepath.Join(dir, "file.cfg"), filepath.Join(dir, "file.cfg")},
		{"cwd", "~/x.cfg", filepath.Join(dir, "home/x.cfg")},
		{"cwd", "missing", "ansible.cfg"},
		{"cwd", "$CONFIGS/x.cfg", filepath.Join(dir, "home/x.cfg")},
		{"cwd", "${CONFIGS}/../named", filepath.Join(dir, "named/ansible.cfg")},
		{"cwd", "$MISSING/x.cfg", "ansible.cfg"},
		{"cwd", "~", "ansible.cfg"}, // a directory without one
		{"cwd", "~nobody-of-this-name/x.cfg", "ansible.cfg"},
	} {
		t.Chdir(filepath.Join(dir, tt.cwd))
		if got := configFile([]string{home, "CONFIGS=" + filepath.Join(dir, "home"), "ANSIBLE_CONFIG=" + tt.named}); got != tt.want {
			t.Errorf("%+v: got %s", tt, got)
		}
	}
}
