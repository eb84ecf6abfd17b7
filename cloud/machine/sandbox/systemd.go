package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// masked are units that want what a machine without its own kernel has not, and
// would only fail.
var masked = []string{
	"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "dev-hugepages.mount", "sys-fs-fuse-connections.mount",
	"systemd-firstboot.service", "modprobe@.service", "systemd-modules-load.service", "systemd-udevd.service",
	"systemd-udev-trigger.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
	"e2scrub_reap.service", "console-getty.service", "systemd-networkd-wait-online.service",
}

// configureSystemd writes units into dir, which is in /run and therefore never
// becomes part of an image.
func (b *bootSpec) configureSystemd(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, unit := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(dir, unit)); err != nil {
			return err
		}
	}
	if b.HasUserData {
		return nil
	}
	for _, unit := range []string{"cloud-init-local.service", "cloud-init.service", "cloud-init-network.service"} {
		if err := unorderCloudInit(dir, unit); err != nil {
			return err
		}
	}
	return nil
}

// unorderCloudInit lets a stage of cloud-init run beside the machine, and not
// before it: it begins when the SSH server is up. The distribution holds
// everything back until it is done, for the sake of user data; where there is
// none this only costs time. The unit is the image's own, less its orderings
// against others than cloud-init's.
func unorderCloudInit(dir, unit string) error {
	for _, from := range []string{"/usr/lib/systemd/system", "/lib/systemd/system"} {
		b, err := os.ReadFile(filepath.Join(from, unit))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, unit), []byte(withoutBefore(string(b))+"\n[Unit]\nAfter=ssh.service sshd.service\n"), 0o644)
	}
	return nil
}

// withoutBefore removes from a unit file what must wait for the unit, except for
// the shutdown and what is about cloud-init itself.
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

// cloudInitConfig outranks the image's configuration and leaves no trace in it:
// cloud-init looks for it on the kernel's command line, for which it takes the
// first process's in a container. The host keys are made already, it shall
// neither delete them nor make more.
const cloudInitConfig = "cc:{ssh_deletekeys: false, ssh_genkeytypes: []}end_cc"
