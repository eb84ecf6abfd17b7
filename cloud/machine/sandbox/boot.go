package sandbox

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// resetClocks makes the clocks that count from the boot start at zero for the processes that the
// calling thread starts from now on. If the kernel has no time namespaces, they keep the host's
// clocks.
func resetClocks() error {
	err := unix.Unshare(unix.CLONE_NEWTIME)
	if errors.Is(err, unix.EINVAL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("new view of time: %w", err)
	}
	var offsets strings.Builder
	for name, clock := range map[string]int32{"monotonic": unix.CLOCK_MONOTONIC, "boottime": unix.CLOCK_BOOTTIME} {
		var now unix.Timespec
		if err := unix.ClockGettime(clock, &now); err != nil {
			return os.NewSyscallError("clock_gettime", err)
		}
		if now.Sec > 1 { // a clock must not show 0
			fmt.Fprintf(&offsets, "%s %d 0\n", name, 1-now.Sec)
		}
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/timens_offsets", unix.Gettid()), []byte(offsets.String()), 0)
}

// newBootID gives this boot of the machine its own boot id, by which journals and programs that
// wait for a reboot recognize it.
func newBootID() error {
	const path, own = "/proc/sys/kernel/random/boot_id", "/run/bake/boot_id"
	var random [16]byte
	rand.Read(random[:]) // never fails
	random[6], random[8] = random[6]&0x0f|0x40, random[8]&0x3f|0x80
	if err := os.WriteFile(own, []byte(uuidText(random)+"\n"), 0o444); err != nil {
		return err
	}
	err := unix.Mount(own, path, "", unix.MS_BIND, "")
	if err == nil {
		err = unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|noSpecial, "")
	}
	if err != nil {
		return fmt.Errorf("bind %s: %w", path, err)
	}
	return nil
}

func uuidText(b [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// firmware returns the files below /sys by which programs on an EC2 instance recognize where they
// run. They are those of Nitro instances, and the UUID file of Xen instances, which cloud-init
// reads in a container: there it takes the DMI data for the host's.
func (b *bootSpec) firmware() map[string]string {
	sum := sha256.Sum256([]byte(b.ID))
	uuid := "ec2" + uuidText([16]byte(sum[:16]))[3:]
	files := map[string]string{filepath.Join(hypervisorPath, "uuid"): uuid}
	for name, text := range map[string]string{
		"bios_date": "10/16/2017", "bios_release": "1.0", "bios_vendor": "Amazon EC2", "bios_version": "1.0",
		"board_asset_tag": b.ID, "board_vendor": "Amazon EC2",
		"chassis_asset_tag": "Amazon EC2", "chassis_type": "1", "chassis_vendor": "Amazon EC2",
		"product_name": b.InstanceType, "product_serial": uuid, "product_uuid": uuid, "sys_vendor": "Amazon EC2",
	} {
		files[filepath.Join(dmiPath, "id", name)] = text
	}
	return files
}

const (
	dmiPath        = "devices/virtual/dmi"
	hypervisorPath = "hypervisor"
)

// mountSys mounts /sys with the firmware files of EC2. An overlay provides the directories that the
// host's may lack, and bind mounts cover the files that the host may have. The working directory is
// the machine's root.
func (b *bootSpec) mountSys() error {
	if err := (mount{kind: "sysfs", target: "sys", flags: noSpecial | unix.MS_RDONLY}).do(); err != nil {
		return err
	}
	if len(b.Command) > 0 {
		return nil
	}
	const own = "run/bake/sys"
	for name, text := range b.firmware() {
		path := filepath.Join(own, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		mode := fs.FileMode(0o444)
		if strings.HasSuffix(name, "_uuid") || strings.HasSuffix(name, "_serial") {
			mode = 0o400
		}
		if err := os.WriteFile(path, []byte(text+"\n"), mode); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(own, "class/dmi"), 0o755); err != nil {
		return err
	}
	if err := os.Symlink("../../"+dmiPath+"/id", filepath.Join(own, "class/dmi/id")); err != nil {
		return err
	}
	if err := cpuFiles(own); err != nil {
		return err
	}
	if err := (overlay{lower: []string{own, "sys"}}).mount("sys", b.OldMount); err != nil {
		return err
	}
	for _, path := range []string{dmiPath, hypervisorPath} {
		if err := (mount{source: filepath.Join(own, path), target: filepath.Join("sys", path), flags: unix.MS_BIND}).do(); err != nil {
			return err
		}
		if err := unix.Mount("", filepath.Join("sys", path), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|noSpecial, ""); err != nil {
			return fmt.Errorf("protect /sys/%s: %w", path, err)
		}
	}
	return nil
}
