package sandbox

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bake/cloud/machine"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// TestVolume formats and mounts volumes, one attached at the start and one attached later, and
// starts a machine from one.
func TestVolume(t *testing.T) {
	b := newBench(t, Options{})
	b.eachInit(t, func(t *testing.T, b *bench, _ Init) {
		spec := b.spec()
		place := func(name string) string { return filepath.Join(spec.Dir, machine.VolumesDir, name) }
		if err := os.MkdirAll(place(""), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := b.driver.MakeVolume(t.Context(), place("xvdf"), nil, 1<<30); err != nil {
			t.Fatal(err)
		}
		m := b.start(spec)
		c := b.login(spec)

		expect(t, c, "sudo mount /dev/xvdf /mnt", "wrong fs type")
		b.run(c, "sudo mkfs.ext4 -q -L root /dev/sdf")
		if got := b.run(c, "sudo blkid -o value -s LABEL /dev/xvdf"); got != "root" {
			t.Errorf("blkid says %q", got)
		}
		expect(t, c, "sudo mount -t xfs /dev/xvdf /mnt", "wrong fs type")
		b.run(c, "sudo mount -o noatime /dev/nvme1n1 /mnt && echo data | sudo tee /mnt/file && sudo mkdir /mnt/proc && sudo mount -t proc proc /mnt/proc && sudo umount /mnt/proc")
		if err := m.Unplug(t.Context(), "xvdf"); err == nil || !strings.Contains(err.Error(), "mounted at /mnt") {
			t.Errorf("a mounted volume was unplugged: %v", err)
		}
		if got := b.run(c, "sudo umount /dev/xvdf && ls /mnt && sudo mount /dev/xvdf /mnt && cat /mnt/file"); got != "data" {
			t.Errorf("the volume holds %q", got)
		}
		expect(t, c, "sudo umount /mnt && sudo mount -o ro /dev/xvdf /mnt && sudo touch /mnt/other", "Read-only")
		b.run(c, "sudo umount /mnt && sudo mkfs.ext4 -qF /dev/xvdf && sudo mount /dev/xvdf /mnt")
		if got := b.run(c, "ls /mnt"); got != "" {
			t.Errorf("a new file system has %q", got)
		}

		// Only the parts of a volume are from the host, and none of them can be made to lead
		// elsewhere.
		if got := b.run(c, "stat -f -c %T /run/bake/volumes /run/bake/volumes/xvdf"); got != "tmpfs\ntmpfs" {
			t.Errorf("the volumes' directories are %q", got)
		}
		for _, command := range []string{
			"sudo mv /run/bake/volumes/xvdf /run/bake/volumes/zz && sudo ln -s /home/victim /run/bake/volumes/xvdf; sudo rm /run/bake/volumes/xvdf; sudo mv /run/bake/volumes/zz /run/bake/volumes/xvdf",
			"sudo mv /run/bake/volumes/xvdf/content /run/bake/volumes/xvdf/zz", "sudo rm -rf /run/bake/volumes/xvdf/device",
		} {
			try(c, command)
		}
		for path, dir := range map[string]bool{"": true, machine.VolumeContent: true, volumeDevice: false, volumeFilesystem: false} {
			if st, err := os.Lstat(filepath.Join(place("xvdf"), path)); err != nil || st.IsDir() != dir || !dir && !st.Mode().IsRegular() {
				t.Errorf("on the host %q is %v, %v", path, st, err)
			}
		}

		other := filepath.Join(spec.Dir, "other")
		if err := b.driver.MakeVolume(t.Context(), other, b.layers, 8<<30); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(other, place("xvdg")); err != nil {
			t.Fatal(err)
		}
		if err := m.Plug(t.Context(), "xvdg"); err != nil {
			t.Fatal(err)
		}
		b.run(c, "sudo mkdir /data && sudo mount /dev/xvdg /data && sudo chroot /data /bin/true && echo here | sudo tee /data/etc/volume && sudo umount /data")
		holder, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		pipe, err := holder.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := holder.Start("cd /run/bake/volumes/xvdg/content && touch /tmp/held && cat"); err != nil {
			t.Fatal(err)
		}
		b.run(c, "until test -e /tmp/held; do sleep 0.05; done")
		if err := m.Unplug(t.Context(), "xvdg"); !errors.Is(err, unix.EBUSY) {
			t.Errorf("a volume in use was unplugged: %v", err)
		}
		b.run(c, "sudo blkid /dev/xvdg; test -f /run/bake/volumes/xvdg/device && test -d /run/bake/volumes/xvdg/content/etc")
		pipe.Close()
		holder.Wait()
		if err := m.Unplug(t.Context(), "xvdg"); err != nil {
			t.Error(err)
		}
		expect(t, c, "stat /dev/xvdg", "No such file")
		if err := m.Stop(t.Context()); err != nil {
			t.Error(err)
		}

		again := b.spec()
		again.Layers = []string{filepath.Join(place("xvdg"), machine.VolumeContent)}
		b.start(again)
		if got := b.run(b.login(again), "cat /etc/volume"); got != "here" {
			t.Errorf("a machine of the volume says %q", got)
		}
	})
}

func expect(t *testing.T, c *ssh.Client, command, failure string) {
	t.Helper()
	if out, err := try(c, command); err == nil || !strings.Contains(out, failure) {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}

func TestParseMount(t *testing.T) {
	for _, test := range []struct {
		args, kind, options, dir string
	}{
		{"/dev/xvdf /mnt", "", "", "/mnt"},
		{"-t ext4 -o ro,noatime /dev/xvdf /mnt", "ext4", "ro noatime", "/mnt"},
		{"-text4 -oro /dev/xvdf /mnt", "ext4", "ro", "/mnt"},
		{"--types=xfs /dev/xvdf --options ro /mnt", "xfs", "ro", "/mnt"},
		{"-r /dev/xvdf /mnt", "", "ro", "/mnt"},
		{"--bind /dev /mnt/dev", "", "", ""},
		{"-o bind /dev /mnt/dev", "", "bind", ""},
		{"-a", "", "", ""},
		{"/mnt", "", "", ""},
	} {
		c := parseMount(strings.Fields(test.args))
		if c.kind != test.kind || strings.Join(c.options, " ") != test.options || c.dir != test.dir || c.volume != "" {
			t.Errorf("%s: %+v", test.args, c)
		}
	}
}

func TestMountPoints(t *testing.T) {
	table := `25 1 0:30 / / rw - overlay overlay rw
26 25 254:1 /store/machines/i-1/volumes/xvdf/content /run/bake/volumes/xvdf/content rw - ext4 /dev/vda rw
27 25 254:1 /store/machines/i-1/volumes/xvdf/content /mnt rw - ext4 /dev/vda rw
28 25 254:1 /store/machines/i-1/volumes/xvdf/content /a\040b rw - ext4 /dev/vda rw
29 25 254:1 /store/machines/i-1/volumes/xvdg/content /other rw - ext4 /dev/vda rw
30 25 254:2 /store/machines/i-1/volumes/xvdf/content /elsewhere rw - ext4 /dev/vdb rw
bad line
`
	if got := placesOf(table, "xvdf"); !slices.Equal(got, []string{"/a b", "/mnt"}) {
		t.Errorf("mounted at %q", got)
	}
	if got := placesOf(table, "xvdh"); got != nil {
		t.Errorf("mounted at %q", got)
	}
}

func TestReadFilesystem(t *testing.T) {
	for kind, magic := range map[string]struct {
		offset int
		text   string
	}{
		"ext": {0x438, "\x53\xef"}, "xfs": {0, "XFSB"}, "btrfs": {0x10040, "_BHRfS_M"}, "vfat": {0x52, "FAT32   "}, "": {0, "something else"},
	} {
		disk := make([]byte, 1<<17)
		copy(disk[magic.offset:], magic.text)
		got, _, err := readFilesystem(bytes.NewReader(disk))
		if err != nil || got != kind {
			t.Errorf("%s: %q, %v", kind, got, err)
		}
	}
	if kind, _, err := readFilesystem(strings.NewReader("short")); kind != "" || err != nil {
		t.Errorf("a short disk is %q, %v", kind, err)
	}
}
