// Package login records how a user's own SSH client can log in to the machines of a
// run, for as long as they exist.
package login

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"bake/internal/shellquote"
	"bake/internal/wholefile"
)

// Machine is a machine of a run, with how to log in to it.
type Machine struct {
	Run   string `json:"run"`
	Build string `json:"build"`

	User    string `json:"user"`
	Host    string `json:"host"`
	Port    int    `json:"port"`
	KeyFile string `json:"key_file,omitempty"` // empty if the user's own keys or a password are used
	Cert    string `json:"certificate_file,omitempty"`

	// Proxy is a command that connects its standard input and output to the machine,
	// with the %h and %p of ssh_config; none if the host can be dialed.
	Proxy []string `json:"proxy,omitempty"`

	// Through describes, in words, the only way to reach the machine if an SSH client
	// cannot use that way; otherwise it is empty.
	Through string `json:"through,omitempty"`
}

// way describes how the machine is reached.
func (m Machine) way() string { return strings.Join(m.Args(), "\x00") }

// Args returns the arguments of ssh. The host key is not checked: only the run has seen
// it, and the machine is short-lived.
func (m Machine) Args() []string {
	var args []string
	if m.KeyFile != "" {
		args = append(args, "-i", m.KeyFile, "-o", "IdentitiesOnly=yes")
	}
	if m.Cert != "" {
		args = append(args, "-o", `CertificateFile="`+m.Cert+`"`) // quoted, because a space would split it
	}
	args = append(args, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile="+os.DevNull, "-o", "LogLevel=ERROR")
	if m.Port != 0 && m.Port != 22 {
		args = append(args, "-p", strconv.Itoa(m.Port))
	}
	if len(m.Proxy) > 0 {
		args = append(args, "-o", "ProxyCommand="+shellquote.For(runtime.GOOS, m.Proxy...))
	}
	if m.User != "" {
		args = append(args, "-l", m.User)
	}
	return append(args, "--", m.Host)
}

// Command returns the same as a command line for the usual shell of this system.
func (m Machine) Command() string {
	args := m.Args()
	args = slices.Delete(args, len(args)-2, len(args)) // so that options can be appended
	if i := slices.Index(args, "-l"); i >= 0 {
		args = slices.Delete(args, i, i+2)
	}
	host := m.Host
	if m.User != "" {
		host = m.User + "@" + host
	}
	return shellquote.For(runtime.GOOS, append(append([]string{"ssh"}, args...), host)...)
}

// Dir returns the directory with the records of a run's machines, below the directory
// of all runs.
func Dir(runs, run string) string { return filepath.Join(runs, run+suffix) }

// RunOf returns the run whose machines are recorded in dir.
func RunOf(dir string) string { return strings.TrimSuffix(filepath.Base(dir), suffix) }

const suffix = ".keys"

// maxMachine is far larger than the text of any machine, in bytes.
const maxMachine = 1 << 20

// Save records m in dir, with its private key if the key is not in a file of the user, and
// returns m with the path of the key. Only this user can read the files in dir.
func Save(dir string, m Machine, key string) (Machine, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return m, err
	}
	base := filepath.Join(dir, strings.NewReplacer("/", "_", `\`, "_", ":", "_").Replace(m.Build))
	if key != "" {
		m.KeyFile = base + ".pem"
		if err := wholefile.WriteData(m.KeyFile, 0o600, []byte(strings.TrimRight(key, "\n")+"\n")); err != nil {
			return m, err
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	return m, wholefile.WriteData(base+".json", 0o600, text)
}

// Find returns the machines that are recorded below runs, the newest last: of all runs, or
// of those whose ids begin with run; of all builds, or of the one called build. A machine
// that was recorded by several runs is listed once, for the newest. Records of other runs
// are not read.
func Find(runs, run, build string) ([]Machine, error) {
	names, err := fs.Glob(os.DirFS(runs), "*"+suffix+"/*.json") // runs may contain special characters of patterns
	if err != nil {
		return nil, err
	}
	var found []Machine
	at := map[string]time.Time{}
	for _, name := range names {
		if !strings.HasPrefix(name, run) {
			continue
		}
		path := filepath.Join(runs, filepath.FromSlash(name))
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // its run has just ended
		}
		if err != nil {
			return nil, err
		}
		text, err := wholefile.Read(path, maxMachine)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var m Machine
		if err := json.Unmarshal(text, &m); err != nil {
			return nil, fmt.Errorf("%s cannot be read: %w; delete it", path, err)
		}
		if build == "" || m.Build == build {
			found = append(found, m)
			at[m.Run+m.Build] = info.ModTime()
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return at[found[i].Run+found[i].Build].Before(at[found[j].Run+found[j].Build]) })
	newest := map[string]Machine{}
	for _, m := range found {
		newest[m.way()] = m
	}
	return slices.DeleteFunc(found, func(m Machine) bool { n := newest[m.way()]; return n.Run != m.Run || n.Build != m.Build }), nil
}

// Import writes files of another host's dir, which are keyed by name, to dir.
func Import(dir string, files map[string][]byte) error {
	if len(files) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, text := range files {
		if filepath.Ext(name) == ".json" {
			if text, err = moved(dir, text, files); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		if err := wholefile.WriteIn(root, name, 0o600, text); err != nil {
			return err
		}
	}
	return nil
}

// moved returns the text of a machine whose key file, if it is one of the files, is in dir.
func moved(dir string, text []byte, files map[string][]byte) ([]byte, error) {
	var m Machine
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, err
	}
	if base := filepath.Base(m.KeyFile); m.KeyFile != "" && files[base] != nil {
		m.KeyFile = filepath.Join(dir, base)
	}
	return json.Marshal(m)
}
