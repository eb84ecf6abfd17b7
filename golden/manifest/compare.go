package manifest

import (
	"fmt"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Change is a file that differs between two manifests.
type Change struct {
	Path string `json:"path"`
	What string `json:"what"` // such as "is new", or "mode 0644 is now 0666"
}

// String returns the change for people, on one line.
func (c Change) String() string { return printable(c.Path) + " " + c.What }

// Compare lists the files in which after differs from before, sorted by path. It leaves
// out paths for which except returns true; except may be nil.
func Compare(before, after *Manifest, except func(path string) bool) (changes []Change) {
	all := &Manifest{files: map[string]file{}}
	for _, m := range []*Manifest{before, after} {
		for p := range m.files {
			all.files[p] = file{}
		}
	}
	for _, p := range all.paths() {
		a, was := before.files[p]
		b, is := after.files[p]
		var what string
		switch {
		case !was:
			what = "is new"
		case !is:
			what = "is gone"
		default:
			what = a.differs(b)
		}
		if what != "" && (except == nil || !except(p)) {
			changes = append(changes, Change{p, what})
		}
	}
	return changes
}

// differs describes how b differs from a; empty if it does not.
func (a file) differs(b file) string {
	if a.kind != b.kind {
		return fmt.Sprintf("was a %s and is a %s", kindName(a.kind), kindName(b.kind))
	}
	var what []string
	if a.kind != link && a.mode != b.mode {
		what = append(what, fmt.Sprintf("mode %04o is now %04o", a.mode, b.mode))
	}
	if a.uid != b.uid || a.gid != b.gid {
		what = append(what, fmt.Sprintf("owner %d:%d is now %d:%d", a.uid, a.gid, b.uid, b.gid))
	}
	switch {
	case a.kind == link && a.target != b.target:
		what = append(what, fmt.Sprintf("leads to %s and no longer to %s", printable(b.target), printable(a.target)))
	case a.kind != regular:
	case a.size != b.size:
		what = append(what, fmt.Sprintf("%d bytes are now %d", a.size, b.size))
	case !a.read || !b.read:
		what = append(what, "could not be read")
	case a.sum != b.sum:
		what = append(what, fmt.Sprintf("content %.4x… is now %.4x…", a.sum, b.sum))
	}
	return strings.Join(what, ", ")
}

func kindName(kind byte) string {
	for k, name := range map[byte]string{regular: "file", 'd': "directory", link: "link", 'b': "block device", 'c': "character device", 'p': "pipe", 's': "socket"} {
		if k == kind {
			return name
		}
	}
	return "file of an unknown kind"
}

// printable returns a path of a machine in a form that can be shown.
func printable(path string) string {
	quoted := fmt.Sprintf("%+q", path)
	if plain := quoted[1 : len(quoted)-1]; plain == path {
		return path
	}
	return quoted
}

// own are the files that differ between machines of one image, and between a machine and
// the one that its image was made of: files that machines write during start.
var own = []string{
	// The identity of the machine, and its location.
	"/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/mtab", "/etc/adjtime",
	"/etc/ssh/ssh_host_*", "/etc/iscsi/initiatorname.iscsi", "/etc/nvme/hostid", "/etc/nvme/hostnqn", "/etc/.updated", "/var/.updated",
	// Logins: the files in which cloud-init sets up the key of the machine. Keys are
	// leftovers.
	"/etc/sudoers.d/90-cloud-init-users", "/root/.ssh/**", "/home/*/.ssh/**", "/root/.*_history", "/home/*/.*_history", "/root/.cache/**", "/home/*/.cache/**",
	"/home/*/.sudo_as_admin_successful", "/var/db/sudo/**", "/var/lib/sudo/**",
	// Its network, and nearby mirrors.
	"/etc/netplan/50-cloud-init.yaml", "/etc/network/interfaces.d/50-cloud-init*", "/etc/systemd/network/10-cloud-init-*", "/etc/sysconfig/network-scripts/ifcfg-*",
	"/etc/NetworkManager/system-connections/cloud-init-*", "/etc/udev/rules.d/70-persistent-net.rules", "/etc/apt/sources.list",
	"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list.d/ubuntu.sources", "/etc/cloud/ds-identify.cfg", "/etc/ssh/sshd_config.d/50-cloud-init.conf",
	// State of services.
	"/var/lib/NetworkManager/**", "/var/lib/amazon/**", "/var/lib/apt/**", "/var/lib/chrony/**", "/var/lib/cloud/**", "/var/lib/dhcp/**",
	"/var/lib/dhclient/**", "/var/lib/dhcpcd/**", "/var/lib/dnf/**", "/var/lib/logrotate/**", "/var/lib/logrotate.status", "/var/lib/man-db/**",
	"/var/lib/ntp/**", "/var/lib/plocate/**", "/var/lib/private/**", "/var/lib/rsyslog/**", "/var/lib/snapd/**", "/var/lib/systemd/**",
	"/var/lib/ubuntu-advantage/**", "/var/lib/unattended-upgrades/**", "/var/lib/update-notifier/**", "/var/lib/urandom/**",
	"/var/spool/postfix/**", "/var/spool/rsyslog/**", "/var/spool/anacron/**", "/var/mail/**", "/var/spool/mail/**",
	// State of the boot loader.
	"/boot/grub/grubenv", "/boot/grub2/grubenv", "/boot/efi/loader/random-seed", "/boot/loader/random-seed",
	// Made from files that are compared.
	"/etc/ld.so.cache", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-",
}

// CheckPattern returns a message about an invalid path pattern, or "".
func CheckPattern(pattern string) string {
	if !strings.HasPrefix(pattern, "/") || !doublestar.ValidatePattern(pattern) {
		return fmt.Sprintf("%q is not an absolute path on the machine, in which * and ? and [...] can stand for names, and ** for directories.", pattern)
	}
	return ""
}

// Own reports whether a file normally differs between machines of one image, or matches
// one of the patterns.
func Own(patterns []string) func(path string) bool {
	return func(path string) bool {
		for _, list := range [][]string{own, patterns} {
			for _, p := range list {
				if doublestar.MatchUnvalidated(p, path) {
					return true
				}
			}
		}
		return false
	}
}
