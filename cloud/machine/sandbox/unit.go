package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// unit is a service, read from the image's systemd unit files for the builtin init. Only the
// settings of simple services are supported, see systemd.service(5).
type unit struct {
	name   string // including the suffix
	path   string
	values map[string][]string // keyed by section and key, such as Service.ExecStart
}

var (
	errNoUnit     = errors.New("not found")
	errMaskedUnit = errors.New("masked")
)

// unitDirs returns the directories of unit files, in order of precedence.
func unitDirs() []string {
	return []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"}
}

// fullName returns a unit's name with its suffix.
func fullName(name string) string {
	if !strings.Contains(name, ".") {
		name += ".service"
	}
	return name
}

func loadUnit(name string) (*unit, error) {
	name = fullName(name)
	template, instance := splitTemplate(name)
	u := &unit{name: name, values: make(map[string][]string)}
	if u.path = findUnit(name, template); u.path == "" {
		return nil, fmt.Errorf("unit %s: %w", name, errNoUnit)
	}
	if target, err := filepath.EvalSymlinks(u.path); err != nil || target == "/dev/null" {
		return nil, fmt.Errorf("unit %s: %w", name, errMaskedUnit)
	}
	files := []string{u.path}
	for _, dir := range unitDirs() {
		more, _ := filepath.Glob(filepath.Join(dir, name+".d", "*.conf"))
		files = append(files, more...)
	}
	expand := strings.NewReplacer("%%", "%", "%i", instance, "%I", instance, "%n", name, "%N", strings.TrimSuffix(name, filepath.Ext(name)), "%t", "/run")
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		err = u.read(f, expand)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return u, nil
}

// splitTemplate splits name@instance.suffix.
func splitTemplate(name string) (template, instance string) {
	before, after, ok := strings.Cut(name, "@")
	if !ok {
		return name, ""
	}
	suffix := filepath.Ext(after)
	return before + "@" + suffix, strings.TrimSuffix(after, suffix)
}

func findUnit(names ...string) string {
	for _, dir := range unitDirs() {
		for _, name := range names {
			if path := filepath.Join(dir, name); exists(path) {
				return path
			}
		}
	}
	return ""
}

// read adds the settings of one file. An empty value clears the earlier ones.
func (u *unit) read(r io.Reader, expand *strings.Replacer) error {
	section, pending := "", ""
	s := bufio.NewScanner(r)
	for more := true; more; {
		line := "" // empty at the end of the file, which completes a continued setting
		if more = s.Scan(); more {
			line = strings.TrimSpace(s.Text())
		}
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		if before, ok := strings.CutSuffix(line, `\`); ok {
			pending += before + " "
			continue
		}
		line, pending = strings.TrimSpace(pending+line), ""
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		key = section + "." + strings.TrimSpace(key)
		if value = strings.TrimSpace(value); value == "" {
			delete(u.values, key)
			continue
		}
		u.values[key] = append(u.values[key], expand.Replace(value))
	}
	return s.Err()
}

// get returns the effective value of a setting that has only one.
func (u *unit) get(key string) string {
	if v := u.values[key]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// kind returns the service's type, which determines when it counts as started.
func (u *unit) kind() string {
	if kind := u.get("Service.Type"); kind != "" {
		return kind
	}
	if len(u.values["Service.ExecStart"]) == 0 {
		return "oneshot"
	}
	return "simple"
}

// command prepares one command line of the unit. Its failure may be ignored if the line
// begins with a minus. The shell splits and expands the line.
func (u *unit) command(line string, mainPID int) (cmd *exec.Cmd, mayFail bool, err error) {
	for line != "" && strings.ContainsRune("-@+!:", rune(line[0])) {
		mayFail = mayFail || line[0] == '-'
		line = line[1:]
	}
	line = strings.NewReplacer("$MAINPID", fmt.Sprint(mainPID), "${MAINPID}", fmt.Sprint(mainPID)).Replace(line)
	script := ""
	for _, file := range u.values["Service.EnvironmentFile"] {
		file = strings.TrimPrefix(file, "-")
		script += fmt.Sprintf("set -a; [ ! -r %[1]s ] || . %[1]s; set +a; ", file)
	}
	cmd = exec.Command("/bin/sh", "-c", script+"exec "+line)
	cmd.Env = os.Environ()
	for _, settings := range u.values["Service.Environment"] {
		for setting := range strings.FieldsSeq(settings) {
			cmd.Env = append(cmd.Env, strings.Trim(setting, `"'`))
		}
	}
	cmd.Dir = strings.TrimPrefix(u.get("Service.WorkingDirectory"), "-")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if user := u.get("Service.User"); user != "" && user != "root" {
		account, err := lookupAccount(user)
		if err != nil {
			return nil, mayFail, err
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(account.uid), Gid: uint32(account.gid), Groups: account.groups}
	}
	return cmd, mayFail, nil
}

// makeDirectories creates the directories that RuntimeDirectory and similar settings name.
func (u *unit) makeDirectories() error {
	for key, base := range map[string]string{"Runtime": "/run", "State": "/var/lib", "Cache": "/var/cache", "Logs": "/var/log"} {
		for name := range strings.FieldsSeq(u.get("Service." + key + "Directory")) {
			path := filepath.Join(base, name)
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			if user := u.get("Service.User"); user != "" {
				account, err := lookupAccount(user)
				if err != nil {
					return err
				}
				if err := os.Chown(path, account.uid, account.gid); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
