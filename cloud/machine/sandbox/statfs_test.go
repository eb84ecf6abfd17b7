package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"bake/cloud/machine"
)

// TestDiskSize checks that the root of a machine has the size of its volume.
func TestDiskSize(t *testing.T) {
	newBench(t, Options{}).eachInit(t, func(t *testing.T, b *bench, init Init) {
		const size = 3 << 30
		spec := b.spec()
		spec.RootSize = size
		b.start(spec)
		c := b.login(spec)
		root := func() (size, used, avail int64) {
			fmt.Sscan(b.run(c, "df -B1 --output=size,used,avail / | tail -1"), &size, &used, &avail)
			return size, used, avail
		}
		all, used, avail := root()
		for deadline := time.Now().Add(30 * time.Second); used < 100<<20 && time.Now().Before(deadline); time.Sleep(time.Second) {
			all, used, avail = root() // the first measurement takes longer than df waits
		}
		if all != size || used < 100<<20 || used > 2<<30 || avail > size-used {
			t.Errorf("df shows %d, %d used, %d available", all, used, avail)
		}
		b.run(c, "head -c 64M /dev/urandom > /tmp/file; sync")
		deadline := time.Now().Add(30 * time.Second)
		more := used
		for more < used+60<<20 && time.Now().Before(deadline) {
			time.Sleep(time.Second)
			_, more, _ = root()
		}
		if more < used+60<<20 || more > used+256<<20 {
			t.Errorf("with 64 MB more, df shows %d used in place of %d", more, used)
		}
		if got := b.run(c, "stat -f -c %b*%S / /etc/passwd /tmp | sort -u; cd /usr/bin; stat -f -c %b ..; stat -f -c %T /"); got != fmt.Sprintf("%d*4096\n%d\noverlayfs", size/4096, size/4096) {
			t.Errorf("stat -f shows %q", got)
		}
		if err := b.driver.GrowVolume(spec.Dir, 2*size); err != nil {
			t.Fatal(err)
		}
		if all, _, _ := root(); all != 2*size {
			t.Errorf("grown to %d, it shows %d", 2*size, all)
		}
		out, err := try(c, "sudo python3 - "+fmt.Sprint(2*size)+" <<'END'\n"+hostileCalls+"END")
		if err != nil || out != "done" {
			t.Errorf("%v: %s", err, out)
		}
		if got := b.run(c, "sudo install -d -m 700 /root/secret; stat -f /root/secret 2>&1; sudo stat -f -c %b /root/secret"); !strings.Contains(got, "Permission denied") || !strings.HasSuffix(got, fmt.Sprint(2*size/4096)) {
			t.Errorf("of what a user may not see, it shows %q", got)
		}
		const largest = 65536 << 30 // the largest volume on EC2, larger than the largest file on ext4
		if err := b.driver.GrowVolume(spec.Dir, largest); err != nil {
			t.Error(err)
		} else if all, _, _ := root(); all != largest {
			t.Errorf("grown to %d, it shows %d", int64(largest), all)
		}
		if err := b.driver.GrowVolume(spec.Dir, 2*size); err != nil {
			t.Fatal(err)
		}
		if init == InitSystemd {
			if got := b.run(c, "sudo systemd-run -q --pipe -p SystemCallFilter=@system-service stat -f -c %b /; sudo systemd-run -q --pipe -p SystemCallFilter=~statfs -p SystemCallErrorNumber=EPERM stat -f / 2>&1; true"); !strings.HasPrefix(got, fmt.Sprint(2*size/4096)+"\n") || !strings.Contains(got, "not permitted") {
				t.Errorf("in units with filters of their own: %q", got)
			}
		}
	})
}

// hostileCalls is a program whose argument is the size of the root in bytes.
const hostileCalls = `
import ctypes, errno, os, signal, subprocess, sys, threading, time
size = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
def total(path):
    s = os.statvfs(path)
    return s.f_blocks * s.f_frsize
def fails(want, path, buf):
    if libc.statfs(path, buf) != -1 or ctypes.get_errno() != want:
        print("statfs", str(path)[:20], "gives", errno.errorcode.get(ctypes.get_errno()), "and not", errno.errorcode[want])
def same(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    a, b = os.statvfs(path), os.fstatvfs(fd)
    if a[:3] != b[:3]:
        print(path, a, "is not the kernel's", b)
def expect(path, want):
    if total(path) != want:
        print(path, "is", total(path), "and not", want)
def child(run):
    pid = os.fork()
    if pid == 0:
        try:
            run()
        except BaseException as e:
            print(repr(e))
        sys.stdout.flush()
        os._exit(0)
    return pid

buf = ctypes.create_string_buffer(256)
fails(errno.ENAMETOOLONG, b"/" + b"x" * (1 << 20), buf)
fails(errno.ENAMETOOLONG, b"/" * 4096, buf)
fails(errno.EFAULT, ctypes.c_void_p(8), buf)
fails(errno.EFAULT, b"/", ctypes.c_void_p(8))
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, ctypes.c_size_t(8192), 1, 0x22, -1, ctypes.c_long(0)) # PROT_READ, MAP_PRIVATE|MAP_ANONYMOUS
fails(errno.EFAULT, b"/", ctypes.c_void_p(page))
page = libc.mmap(None, ctypes.c_size_t(8192), 3, 0x22, -1, ctypes.c_long(0))
libc.munmap(ctypes.c_void_p(page + 4096), ctypes.c_size_t(4096))
ctypes.memmove(page + 4094, b"/", 2) # the path ends where the memory does
if libc.statfs(ctypes.c_void_p(page + 4094), buf) != 0:
    print("a path at the end of memory gives", errno.errorcode.get(ctypes.get_errno()))
fails(errno.ENOENT, b"", buf)
fails(errno.ENOENT, b"/none", buf)
fails(errno.ENOTDIR, b"/etc/passwd/x", buf)

for path in ["/proc", "/run", "/dev/shm", "/dev", "/sys"]:
    same(path)
os.makedirs("/root/t/inner", exist_ok=True)
os.chdir("/root/t/inner")
for name, to in [("out", "/proc"), ("loop", "loop"), ("up", "../../..")]:
    if not os.path.islink(name):
        os.symlink(to, name)
for path in ["..", ".", "../inner", "../../../etc", "up"]:
    expect(path, size)
fails(errno.ELOOP, b"loop", buf)
expect("out", 0)
if not os.path.exists("fifo"):
    os.mkfifo("fifo")
expect("fifo", size)

def chrooted():
    os.chroot("/root/t")
    expect("/", size)
    expect("/../inner", size)
    os.chdir("/")
    expect("..", size)
    fails(errno.ENOENT, b"/etc", buf)
os.waitpid(child(chrooted), 0)
out = subprocess.run(["unshare", "-m", "sh", "-c", "mount -t tmpfs -o size=1m tmp /mnt; mount --bind /mnt/ /root/t/inner; stat -f -c %b / /mnt /root/t/inner"], capture_output=True, text=True)
if out.stdout != "%d\n256\n256\n" % (size // 4096):
    print("in another view of mounts:", out)

for _ in range(100):
    if libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) != 0:
        print("mount gives", errno.errorcode.get(ctypes.get_errno()))
        break
    os.statvfs("/mnt")
    if libc.umount(b"/mnt") != 0:
        print("to unmount what was looked at gives", errno.errorcode.get(ctypes.get_errno()))
        break

def ask():
    while True:
        os.statvfs("/")
children = [child(ask) for _ in range(20)]
time.sleep(0.2)
for pid in children:
    os.kill(pid, signal.SIGKILL)
for pid in children:
    os.waitpid(pid, 0)
def many():
    for _ in range(20):
        expect("/", size)
threads = [threading.Thread(target=many) for _ in range(50)]
for t in threads:
    t.start()
for t in threads:
    t.join()

# A signal that is handled makes a call begin again at most.
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for _ in range(100):
    if libc.statfs(b"/", buf) != 0:
        print("a signal gives", errno.errorcode.get(ctypes.get_errno()))
        break
signal.setitimer(signal.ITIMER_REAL, 0)
print("done")
`

// TestDiskWithoutSize checks that, without a size or a listener, the host's size is shown.
func TestDiskWithoutSize(t *testing.T) {
	b := newBench(t, Options{})
	spec := b.spec()
	b.start(spec)
	var host unix.Statfs_t
	if err := unix.Statfs(b.dir, &host); err != nil {
		t.Fatal(err)
	}
	if got := b.run(b.login(spec), "stat -f -c %b /"); got != fmt.Sprint(host.Blocks) {
		t.Errorf("it shows %s blocks, the host has %d", got, host.Blocks)
	}
}

func TestFillDisk(t *testing.T) {
	for _, test := range []struct {
		size, used, hostFree, free, avail uint64
	}{
		{8 << 30, 1 << 30, 100 << 30, 7 << 30, 7 << 30},
		{8 << 30, 1 << 30, 2 << 30, 7 << 30, 2 << 30},
		{8 << 30, 1<<30 + 1, 100 << 30, 7<<30 - 4096, 7<<30 - 4096},
		{8 << 30, 9 << 30, 100 << 30, 0, 0},
	} {
		st := unix.Statfs_t{Bsize: 4096, Blocks: 1 << 30, Bavail: test.hostFree / 4096}
		fill(&st, int64(test.size), diskUse{int64(test.used), 1 << 30})
		fragments := unix.Statfs_t{Bsize: 1 << 20, Frsize: 4096, Blocks: 1 << 30, Bavail: test.hostFree / 4096}
		fill(&fragments, int64(test.size), diskUse{int64(test.used), 1 << 30})
		if fragments.Blocks != st.Blocks || fragments.Bfree != st.Bfree || fragments.Bavail != st.Bavail {
			t.Errorf("%+v: with fragments %+v", test, fragments)
		}
		if st.Blocks*4096 != test.size || st.Bfree*4096 != test.free || st.Bavail*4096 != test.avail || st.Files != test.size>>14 || st.Ffree != 0 {
			t.Errorf("%+v: %+v", test, st)
		}
	}
}

func TestVolumeIn(t *testing.T) {
	for path, want := range map[string]string{
		"/state/machines/i-1/volumes/xvdf/content":             "xvdf",
		"/machines/i-1/volumes/xvdf/content/sub/dir":           "xvdf",
		"/machines/i-1/volumes/xvdf/contents":                  "",
		"/machines/i-1/volumes/xvdf":                           "",
		"/machines/i-2/volumes/xvdf/content":                   "",
		"/machines/i-1/volumes/../content":                     "",
		"/machines/i-1/upper":                                  "",
		"/machines/i-1/volumes/xvdf/content/i-1/volumes/a/con": "xvdf",
		"": "",
	} {
		if got := volumeIn(path, "i-1"); got != want {
			t.Errorf("%s is in %q, not %q", path, got, want)
		}
	}
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, n int) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	far := time.Now().Add(time.Hour)
	empty := measure(dir, far)
	write("a/b/file", 1<<20)
	if err := os.Link(filepath.Join(dir, "a/b/file"), filepath.Join(dir, "a/again")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	got := measure(dir, far)
	if all := measure(dir, time.Time{}); all != got {
		t.Errorf("without a deadline it counted %+v, not %+v", all, got)
	}
	if n := got.files - empty.files; n != 4 { // two directories, the file, the link
		t.Errorf("%d files", n)
	}
	if n := got.bytes - empty.bytes; n < 1<<20 || n > 1<<20+64<<10 {
		t.Errorf("%d bytes", n)
	}
	if late := measure(dir, time.Now()); late != (diskUse{}) {
		t.Errorf("without time it counted %+v", late)
	}
	if none := measure(filepath.Join(dir, "none"), far); none != (diskUse{}) {
		t.Errorf("of nothing it counted %+v", none)
	}
	write(strings.Repeat("d/", usageDepth+50)+"deep", 1)
	if n := measure(dir, far).files - got.files; n != usageDepth {
		t.Errorf("of a deep tree it counted %d", n)
	}
}

func TestUsageIsKept(t *testing.T) {
	fixed, dir := t.TempDir(), t.TempDir()
	u := newUsage([]string{fixed}, dir)
	before := u.now()
	for _, in := range []string{fixed, dir} {
		if err := os.WriteFile(filepath.Join(in, "file"), make([]byte, 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if now := u.now(); now != before {
		t.Errorf("it looked again at once: %+v", now)
	}
	u.until = time.Time{}
	if now := u.now(); now.files != before.files+1 {
		t.Errorf("later it shows %+v, before %+v", now, before)
	}
}

// TestVolumeSize checks that a volume's file system has the size of the volume, wherever it is
// mounted.
func TestVolumeSize(t *testing.T) {
	b := newBench(t, Options{})
	spec := b.spec()
	spec.RootSize = 8 << 30
	dir := filepath.Join(spec.Dir, machine.VolumesDir, "xvdf")
	if err := b.driver.Private(filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	if err := b.driver.MakeVolume(t.Context(), dir, nil, 1<<30); err != nil {
		t.Fatal(err)
	}
	b.start(spec)
	c := b.login(spec)
	b.run(c, "sudo mkfs.ext4 -q /dev/xvdf && sudo mkdir /data /bound && sudo mount /dev/xvdf /data && sudo mkdir /data/sub && sudo mount --bind /data/sub /bound && sudo head -c 32M /dev/urandom | sudo tee /data/sub/file > /dev/null")
	if got := b.run(c, "stat -f -c %b / /data /data/sub /bound; cd /bound; stat -f -c %b ."); got != fmt.Sprintf("%d\n%[2]d\n%[2]d\n%[2]d\n%[2]d", 8<<30/4096, 1<<30/4096) {
		t.Errorf("it shows %q", got)
	}
	if got := b.run(c, "sudo truncate -s 5G /run/bake/volumes/xvdf/device; stat -f -c %b /data; sudo truncate -s 1G /run/bake/volumes/xvdf/device"); got != fmt.Sprint(1<<30/4096) {
		t.Errorf("with its device of another size, it shows %s", got)
	}
	var used int64
	fmt.Sscan(b.run(c, "df -B1 --output=used /data | tail -1"), &used)
	if used < 32<<20 || used > 40<<20 {
		t.Errorf("of 32 MB, %d are used", used)
	}
	if err := b.driver.GrowVolume(dir, 2<<30); err != nil {
		t.Fatal(err)
	}
	if got := b.run(c, "stat -f -c %b /data"); got != fmt.Sprint(2<<30/4096) {
		t.Errorf("grown, it shows %s", got)
	}
}

func TestVolumeMounted(t *testing.T) {
	const line = "41 1 8:1 /m/i-1/volumes/xvdf/content /data rw - ext4 /dev/root rw\n"
	others := strings.Repeat("40 1 0:30 / /tmp rw - tmpfs none rw\n", 1000)
	broken := iotest.ErrReader(errors.New("read on"))
	if got, err := volumeMounted(io.MultiReader(strings.NewReader(others+line), broken), 41, "i-1"); got != "xvdf" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for name, table := range map[string]io.Reader{
		"another":  strings.NewReader("141" + line[2:] + "4" + line[2:]),
		"short":    strings.NewReader("41 1 8:1\n"),
		"endless":  io.MultiReader(strings.NewReader(strings.Repeat(others, mountsMost/len(others)+1)), broken),
		"one line": io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), broken),
	} {
		if got, err := volumeMounted(table, 41, "i-1"); got != "" || err != nil && strings.Contains(err.Error(), "read on") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// TestVolumeWithoutSizeFile checks that a volume made by an older version has the size of its
// device.
func TestVolumeWithoutSizeFile(t *testing.T) {
	dir := t.TempDir()
	device := filepath.Join(dir, volumeDevice)
	if err := errors.Join(os.WriteFile(device, nil, 0o600), os.Truncate(device, 3<<30)); err != nil {
		t.Fatal(err)
	}
	if got, err := readSize(dir); got != 3<<30 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
}

// TestVolumeSizeFile checks sizes above the maximum size of a file.
func TestVolumeSizeFile(t *testing.T) {
	dir := t.TempDir()
	if err := growVolume(dir, 1<<30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is no volume grows: %v", err)
	}
	const size = 65536 << 30
	for _, write := range []func(string, int64) error{writeSize, growVolume} {
		if err := write(dir, size); err != nil {
			t.Fatal(err)
		}
		if got, err := readSize(dir); got != size || err != nil {
			t.Errorf("%d, %v", got, err)
		}
	}
}
