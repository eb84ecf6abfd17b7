package sandbox

import (
	"os"
	"path/filepath"
	"slices"
)

// maskedGenerators are generators that look for disks, kernel arguments and clouds. They take a
// third of the boot time and find nothing.
var maskedGenerators = []string{
	"systemd-cryptsetup-generator", "systemd-debug-generator", "systemd-getty-generator", "systemd-gpt-auto-generator",
	"systemd-hibernate-resume-generator", "systemd-integritysetup-generator", "systemd-run-generator",
	"systemd-system-update-generator", "systemd-veritysetup-generator", "systemd-bless-boot-generator",
	"cloud-init-generator",
}

// configureGenerators masks generators, or makes them conditional, by files below dir, where
// systemd looks first.
func configureGenerators(dir string) error {
	system := filepath.Join(dir, "system-generators")
	if err := os.MkdirAll(system, 0o755); err != nil {
		return err
	}
	for _, generator := range slices.Concat(maskedGenerators, rcLocalGenerator()) {
		if err := os.Symlink("/dev/null", filepath.Join(system, generator)); err != nil {
			return err
		}
	}
	if err := maskUserGenerators(filepath.Join(dir, "user-generators")); err != nil {
		return err
	}
	if err := mountTable(system); err != nil {
		return err
	}
	for _, g := range conditionalGenerators {
		if err := g.write(dir, "/"); err != nil {
			return err
		}
	}
	return nil
}

// rcLocalGenerator returns the generator for rc.local, to be masked, unless the image has such a
// script.
func rcLocalGenerator() []string {
	if exists("/etc/rc.local") || exists("/etc/rc.d/rc.local") {
		return nil
	}
	return []string{"systemd-rc-local-generator"}
}

// maskUserGenerators masks the generator for desktops, which delays the first login, unless the
// image has an autostart directory.
func maskUserGenerators(dir string) error {
	if exists("/etc/xdg/autostart") {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.Symlink("/dev/null", filepath.Join(dir, "systemd-xdg-autostart-generator"))
}

// A conditionalGenerator is a systemd generator that rarely has work to do. A shell script, which
// starts in a quarter of the time, checks that first. It checks at each run, because the answer may
// change while the machine runs.
type conditionalGenerator struct {
	kind, name string
	script     string // shell script that calls work if there is work to do
}

var conditionalGenerators = []conditionalGenerator{
	{"system-generators", "systemd-sysv-generator", `# Scripts for which there are no units.
for f in /etc/init.d/* /etc/rc.d/init.d/*; do
	[ -f "$f" ] && [ -x "$f" ] || continue
	n=${f##*/}
	n=${n%.sh}.service
	for d in /etc /run /usr/local/lib /usr/lib /lib; do
		if [ -e $d/systemd/system/$n ]; then continue 2; fi
	done
	work "$@"
done
`},
	{"user-environment-generators", "30-systemd-environment-d-generator", `# Files with variables, see environment.d(5).
for d in /etc /run /usr/local/lib /usr/lib "${XDG_CONFIG_HOME:-$HOME/.config}"; do
	for f in "$d"/environment.d/*.conf; do
		if [ -s "$f" ]; then work "$@"; fi
	done
done
`},
}

// write installs the script below dir, in place of the generator of the image with that root. If
// the image has its own version of the generator, it does nothing.
func (g conditionalGenerator) write(dir, root string) error {
	const distribution = "/usr/lib/systemd/"
	for _, from := range []string{"/etc/systemd/", "/usr/local/lib/systemd/", distribution} {
		path := filepath.Join(from, g.kind, g.name)
		switch {
		case !exists(filepath.Join(root, path)):
			continue
		case from != distribution:
			return nil
		}
		text := "#!/bin/sh\nwork() { exec " + path + " \"$@\"; }\n" + g.script
		dir = filepath.Join(dir, g.kind)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, g.name), []byte(text), 0o755)
	}
	return nil
}
