package sandbox

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// masked are units that need something that a machine without its own kernel lacks. They would only
// fail or wait.
var masked = []string{
	"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "dev-hugepages.mount", "sys-fs-fuse-connections.mount",
	"systemd-firstboot.service", "modprobe@.service", "systemd-modules-load.service", "systemd-udevd.service",
	"systemd-udev-trigger.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
	"e2scrub_reap.service", "console-getty.service", "systemd-networkd-wait-online.service",
	"systemd-remount-fs.service", "systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup-dev-early.service",
	// The network and the resolver are set up before systemd starts.
	"systemd-networkd.service", "systemd-networkd.socket", "systemd-resolved.service", "NetworkManager-wait-online.service",
	"nm-cloud-setup.service", "nm-cloud-setup.timer",
	"systemd-journald-audit.socket", "kdump.service", "rngd.service", "lvm2-monitor.service", "multipathd.service", "multipathd.socket",
	"snapd.service", "snapd.socket", "snapd.seeded.service", "snapd.apparmor.service", "fstrim.timer",
	// These would only hold the package manager's lock while a build needs it.
	"apt-daily.timer", "apt-daily-upgrade.timer", "dnf-makecache.timer",
}

// configureSystemd writes bake's configuration of systemd below dir. dir is in /run and so never
// becomes part of an image.
func (b *bootSpec) configureSystemd(dir string) error {
	units := filepath.Join(dir, "system")
	if err := os.MkdirAll(units, 0o755); err != nil {
		return err
	}
	for _, unit := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(units, unit)); err != nil {
			return err
		}
	}
	if err := configureGenerators(dir); err != nil {
		return err
	}
	if err := b.limitTmp(units); err != nil {
		return err
	}
	if hasSystemUsers(sysusersDirs) {
		// systemd-sysusers is skipped, as on a machine that has booted before and needs no update.
		if err := writeAddition(units, "systemd-sysusers.service", "bake.conf", "[Unit]\nConditionPathExists=!/run/bake\n"); err != nil {
			return err
		}
	}
	if err := b.hastenLogin(units); err != nil {
		return err
	}
	return b.enableCloudInit(units)
}

// changesUnit reports whether the image replaces the distribution's unit with its own, or whether
// any drop-in changes the unit, see systemd.unit(5). bake must respect those: it then neither
// empties the unit's lists of commands nor runs the commands elsewhere.
func changesUnit(unit string, exists func(path string) bool) bool {
	stem, suffix, _ := strings.Cut(unit, ".")
	additions := []string{unit + ".d", suffix + ".d"}
	for i, letter := range stem {
		if letter == '-' {
			additions = append(additions, stem[:i+1]+"."+suffix+".d")
		}
	}
	own := []string{"/etc/systemd/system/", "/usr/local/lib/systemd/system/"}
	for _, dir := range append(own, "/usr/lib/systemd/system/", "/lib/systemd/system/") {
		if slices.Contains(own, dir) && exists(dir+unit) || slices.ContainsFunc(additions, func(name string) bool { return exists(dir + name) }) {
			return true
		}
	}
	return false
}

// hastenLogin shortens the wait for the first login. The SSH server checks its configuration once
// instead of twice, unless the image changes its unit. The service manager of the login user, which
// a session waits for, starts after the SSH server instead of at the login. Cron starts after both.
// Settings are reset that cost time and change nothing in a machine.
// A second later start the units that no other unit waits for: flushing the journal to the
// disk and the record of the boot.
func (b *bootSpec) hastenLogin(units string) error {
	addition := map[string]string{}
	if !changesUnit("ssh.service", exists) {
		addition["ssh.service"] = "[Service]\nExecStartPre=\n"
	}
	wants := filepath.Join(units, "multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	login := afterServer
	if a, err := lookupAccount(b.User); err == nil && findsUnit("user@.service") && findsUnit("systemd-logind.service") {
		manager := fmt.Sprintf("user@%d.service", a.uid)
		addition[manager] = afterServer
		login = strings.TrimSuffix(afterServer, "\n") + " " + manager + "\n"
		if err := os.Symlink("/usr/lib/systemd/system/user@.service", filepath.Join(wants, manager)); err != nil {
			return err
		}
	}
	if err := writeSettled(units, wants, login); err != nil {
		return err
	}
	if err := resetSettings(addition); err != nil {
		return err
	}
	// multi-user.target waits for cron, and the last stage of cloud-init for that.
	addition["cron.service"], addition["crond.service"] = login, login
	for unit, text := range addition {
		// This name sorts before all others in any directory, so the image's drop-ins override it.
		if err := writeAddition(units, unit, "00-bake.conf", text); err != nil {
			return err
		}
	}
	for _, unit := range []string{"systemd-journal-flush.service", "systemd-update-utmp.service"} {
		if err := unorder(units, unit, "[Unit]\nAfter="+settled+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// resetSettings resets settings that the first login waits for and that change nothing in a machine,
// see systemd.exec(5). A machine has no credentials of the system, and the login manager's mount
// namespace takes a dozen mounts, each of which waits for the kernel.
func resetSettings(addition map[string]string) error {
	credentials := []string{"LoadCredential=", "ImportCredential="}
	for unit, resets := range map[string][]string{
		"systemd-sysctl.service":         credentials,
		"systemd-tmpfiles-setup.service": credentials,
		"systemd-logind.service": {
			"PrivateTmp=no", "ProtectControlGroups=no", "ProtectHome=no", "ProtectKernelLogs=no",
			"ProtectKernelModules=no", "ProtectSystem=no", "ReadWritePaths=",
		},
	} {
		text, err := unitText(unit)
		if err != nil {
			return err
		}
		if text := resetsOf(string(text), resets); text != "" {
			addition[unit] = text
		}
	}
	return nil
}

// resetsOf returns a drop-in with those resets whose setting a unit makes, or "" if it makes none.
func resetsOf(unit string, resets []string) string {
	var out strings.Builder
	for _, reset := range resets {
		if key, _, _ := strings.Cut(reset, "="); strings.Contains(unit, "\n"+key+"=") {
			out.WriteString(reset + "\n")
		}
	}
	if out.Len() == 0 {
		return ""
	}
	return "[Service]\n" + out.String()
}

// settled is a unit that becomes active a second after the SSH server and the user manager, so
// that the first login has the processors to itself. No target waits for it, because it has no
// default dependencies.
const settled = "bake-settled.service"

// writeSettled writes and enables that unit. order is the start of its [Unit] section.
func writeSettled(units, wants, order string) error {
	text := order + "Description=Leaves the processors to the first login\nDefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target\n" +
		"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=-/bin/sleep 1\n"
	return errors.Join(
		os.WriteFile(filepath.Join(units, settled), []byte(text), 0o644),
		os.Symlink("../"+settled, filepath.Join(wants, settled)),
	)
}

// afterServer makes a unit start after the SSH server.
const afterServer = "[Unit]\nAfter=ssh.service sshd.service\n"

// writeAddition writes a drop-in for a unit, below the directory of units.
func writeAddition(units, unit, file, text string) error {
	dir := filepath.Join(units, unit+".d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644)
}

// limitTmp limits a /tmp in memory, if the distribution has one, to half of the machine's memory.
// The default would be half of the host's.
func (b *bootSpec) limitTmp(units string) error {
	if b.Memory == 0 || !findsUnit("tmp.mount") {
		return nil
	}
	return writeAddition(units, "tmp.mount", "bake.conf", fmt.Sprintf("[Mount]\nOptions=mode=1777,strictatime,nosuid,nodev,size=%d,nr_inodes=1m\n", b.Memory/2))
}

// mountTable keeps systemd from waiting for partitions that the image's /etc/fstab names and the
// machine lacks. File systems that need no disk are still mounted.
func mountTable(generators string) error {
	table, err := os.ReadFile("/etc/fstab")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	kept := withoutDisks(string(table))
	if kept == "" {
		return os.Symlink("/dev/null", filepath.Join(generators, "systemd-fstab-generator"))
	}
	const path = "/run/bake/fstab"
	_ = os.Setenv("SYSTEMD_FSTAB", path)
	return os.WriteFile(path, []byte(kept), 0o644)
}

// withoutDisks returns the lines of a mount table, see fstab(5), whose source is not a device, the
// name of a device, or swap.
func withoutDisks(table string) string {
	var kept strings.Builder
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 3 || strings.HasPrefix(fields[0], "#") || fields[1] == "/" || fields[2] == "swap" {
			continue
		}
		source := fields[0]
		if strings.HasPrefix(source, "/dev/") || strings.Contains(source, "=") {
			continue
		}
		kept.WriteString(strings.TrimSuffix(line, "\n") + "\n")
	}
	return kept.String()
}

// enableCloudInit does what cloud-init's generator does when it detects EC2. Without a metadata
// service cloud-init has nothing to do.
func (b *bootSpec) enableCloudInit(units string) error {
	if !b.Metadata || !findsUnit("cloud-init.target") || exists("/etc/cloud/cloud-init.disabled") {
		return nil
	}
	wants := filepath.Join(units, "multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	if err := os.Symlink("/usr/lib/systemd/system/cloud-init.target", filepath.Join(wants, "cloud-init.target")); err != nil {
		return err
	}
	if err := markCloudInit(runCloudInit); err != nil {
		return err
	}
	if err := writeAddition(units, "cloud-init-local.service", "bake.conf", "[Service]\nEnvironment=\"DEBUG_PROC_CMDLINE="+cloudInitLocal(b.cloudInitConfig())+"\"\n"); err != nil {
		return err
	}
	if err := loadCloudInitOnce(units); err != nil {
		return err
	}
	if b.HasUserData {
		return nil
	}
	for _, unit := range []string{"cloud-init-local.service", "cloud-init.service", "cloud-init-network.service", "cloud-init-main.service"} {
		if err := unorder(units, unit, afterServer); err != nil {
			return err
		}
	}
	return nil
}

// stages is the program that runs the stages of cloud-init.
//
//go:embed stages.py
var stages []byte

// loadCloudInitOnce makes one process run all stages of cloud-init, as cloud-init itself does from
// version 24.3 on. Otherwise it is loaded four times, and loading takes longer than the work. With
// several processors the process starts with the machine; with only one, the first stage starts it.
// If the image or its distribution sets something for a stage that the process could not honor, all
// stages stay as they are.
func loadCloudInitOnce(units string) error {
	program, err := os.ReadFile("/usr/bin/cloud-init")
	if err != nil || findsUnit("cloud-init-main.service") {
		return nil
	}
	python := interpreter(string(program))
	if python == "" {
		return nil
	}
	const path = "/run/bake/cloud-init"
	additions := make(map[string]string)
	for _, unit := range []string{"cloud-init-local.service", "cloud-init.service", "cloud-config.service", "cloud-final.service"} {
		text, err := unitText(unit)
		if err != nil {
			return err
		}
		addition := stageOf(string(text), python+" -S "+path)
		if addition == "" || changesUnit(unit, exists) {
			return nil
		}
		additions[unit] = addition
	}
	if err := os.WriteFile(path, stages, 0o644); err != nil {
		return err
	}
	for unit, text := range additions {
		if err := writeAddition(units, unit, "00-bake-stages.conf", text); err != nil {
			return err
		}
	}
	if runtime.NumCPU() == 1 {
		return nil
	}
	const loader = "bake-cloud-init.service"
	text := "[Unit]\nDescription=Loads cloud-init for its stages\nDefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target\n" +
		"[Service]\nExecStart=" + python + " -S " + path + " load\n"
	return errors.Join(
		os.WriteFile(filepath.Join(units, loader), []byte(text), 0o644),
		os.Symlink("../"+loader, filepath.Join(units, "multi-user.target.wants", loader)),
	)
}

// interpreter returns the interpreter's command line from the first line of a Python script that
// only calls cloud-init, such as setuptools generates for an entry point. It returns "" for any
// other program.
func interpreter(program string) string {
	line, rest, _ := strings.Cut(program, "\n")
	command, ok := strings.CutPrefix(line, "#!")
	if !ok || !strings.Contains(command, "/python3") ||
		!strings.Contains(rest, "from cloudinit.cmd.main import main\n") && !strings.Contains(rest, "'console_scripts', 'cloud-init')") {
		return ""
	}
	return strings.TrimSpace(command)
}

// passedOn are the settings of a service that still apply to a stage run by that process: either
// systemd applies them itself, or the stage gets the files, the environment and the control group
// that result from them.
const passedOn = " Type ExecStart ExecStartPre ExecStartPost RemainAfterExit TimeoutSec KillMode TasksMax StandardOutput Environment EnvironmentFile "

// stageOf returns a drop-in for a unit that makes it run program instead of cloud-init. It returns
// "" if the unit runs anything else, or has settings that would have no effect.
func stageOf(text, program string) string {
	u := &unit{values: map[string][]string{}}
	if u.read(strings.NewReader(text), strings.NewReplacer()) != nil {
		return ""
	}
	for key := range u.values {
		if name, ok := strings.CutPrefix(key, "Service."); ok && !strings.Contains(passedOn, " "+name+" ") {
			return ""
		}
	}
	args := u.values["Service.ExecStart"]
	if len(args) != 1 || !strings.HasPrefix(args[0], "/usr/bin/cloud-init ") {
		return ""
	}
	return "[Service]\nExecStart=\nExecStart=" + program + strings.TrimPrefix(args[0], "/usr/bin/cloud-init") + "\n"
}

// markCloudInit records in dir, as cloud-init's generator does, that cloud-init is going to run.
// Clients that log in wait for it then.
func markCloudInit(dir string) error {
	return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "enabled"), nil, 0o644))
}

// findsUnit reports whether [unitText] finds a unit.
func findsUnit(name string) bool {
	return slices.ContainsFunc(unitPlaces, func(from string) bool {
		info, err := os.Stat(filepath.Join(from, name))
		return err == nil && !info.IsDir()
	})
}

// unitPlaces are the directories of an image's units, except those in /etc, which outrank bake's
// own. The first one that has a unit counts.
var unitPlaces = []string{"/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// unitText returns the image's text of a unit, or nil if it has none.
func unitText(name string) ([]byte, error) {
	for _, from := range unitPlaces {
		b, err := os.ReadFile(filepath.Join(from, name))
		if !errors.Is(err, fs.ErrNotExist) {
			return b, err
		}
	}
	return nil, nil
}

// unorder makes a unit start as order says instead of before the rest of the boot. The distribution
// delays everything until cloud-init is done, for the sake of user data; without user data this
// only costs time. The result is the image's own unit without its orderings, except those against
// cloud-init.
func unorder(dir, unit, order string) error {
	text, err := unitText(unit)
	if err != nil || text == nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, unit), []byte(withoutBefore(string(text))+"\n"+order), 0o644)
}

// withoutBefore removes from a unit file the units that must wait for the unit, except for the
// shutdown, the online network and those of cloud-init itself.
func withoutBefore(unit string) string {
	var out strings.Builder
	for line := range strings.Lines(unit) {
		list, ok := strings.CutPrefix(strings.TrimSpace(line), "Before=")
		if !ok {
			out.WriteString(line)
			continue
		}
		for _, other := range strings.Fields(list) {
			if other == "shutdown.target" || strings.HasPrefix(other, "cloud-") || other == "network-online.target" {
				fmt.Fprintf(&out, "Before=%s\n", other)
			}
		}
	}
	return out.String()
}

// cloudInitLocal returns config for cloud-init's local stage, which runs before there is a network.
// With the EC2 data source that stage would request an address by DHCP and wait a minute for an
// answer.
func cloudInitLocal(config string) string {
	return strings.Replace(config, "datasource_list: [Ec2]", "datasource_list: []", 1)
}

// cloudInitConfig returns configuration that outranks the image's and leaves no trace in it:
// cloud-init reads it from the kernel's command line, and in a container uses that of the first
// process instead. It declares the metadata service to be EC2's, though the host's firmware does
// not say so. The host keys exist already: cloud-init must neither delete them nor generate more,
// and need not print them again unless user data brings others. There is no boot loader to
// configure.
func (b *bootSpec) cloudInitConfig() string {
	config := "datasource_list: [Ec2], datasource: {Ec2: {strict_id: false}}, network: {config: disabled}, " +
		"ssh_deletekeys: false, ssh_genkeytypes: [" + strings.Join(hostKeyTypes, ", ") + "], grub_dpkg: {enabled: false}"
	if !b.HasUserData {
		config += ", ssh: {emit_keys_to_console: false}"
	}
	return "cc:{" + config + "}end_cc"
}
