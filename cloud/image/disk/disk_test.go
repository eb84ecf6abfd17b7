package disk_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bake/cloud/image/disk"
)

// load returns one of the recorded images and its format.
func load(t testing.TB, name string) ([]byte, string) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data, strings.TrimPrefix(filepath.Ext(name), ".")
}

// files returns the regular files on the disk's root file system.
func files(image []byte, format string) (map[string]string, error) {
	d, err := disk.Open(bytes.NewReader(image), int64(len(image)), format)
	if err != nil {
		return nil, err
	}
	root, err := d.Root()
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	if err := root.WriteTar(&archive); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for tr := tar.NewReader(&archive); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			data, err := io.ReadAll(tr)
			if err != nil {
				return nil, err
			}
			out[h.Name] = string(data)
		}
	}
}

var images = []string{"whole.raw", "mbr.raw", "gpt.raw", "logical.raw", "fixed.vhd", "dynamic.vhd", "sparse.vmdk", "stream.vmdk", "machine.ova", "deflate.qcow2", "plain.qcow2", "zstd.qcow2"}

func TestRoot(t *testing.T) {
	var numbers strings.Builder
	for i := range 20000 {
		fmt.Fprintln(&numbers, i+1)
	}
	for _, name := range images {
		t.Run(name, func(t *testing.T) {
			got, err := files(load(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 3 || got["etc/motd"] != "from a disk\n" || got["bin/sh"] != "x\n" || got["big/numbers"] != numbers.String() {
				t.Errorf("%d files; etc/motd is %q", len(got), got["etc/motd"])
			}
		})
	}
}

// TestFooter reads a VMDK image that was written as a stream: its footer has the offset of the
// grain directory.
func TestFooter(t *testing.T) {
	image, format := load(t, "stream.vmdk")
	marker := make([]byte, 512)
	image = slices.Concat(image, marker, image[:512], marker)
	copy(image[56:], bytes.Repeat([]byte{0xff}, 8))
	if got, err := files(image, format); err != nil || got["etc/motd"] != "from a disk\n" {
		t.Errorf("%q, %v", got["etc/motd"], err)
	}
}

func TestErrors(t *testing.T) {
	stream, _ := load(t, "stream.vmdk")
	dynamic, _ := load(t, "dynamic.vhd")
	mbr, _ := load(t, "mbr.raw")
	qcow2, _ := load(t, "deflate.qcow2")
	for _, test := range []struct {
		name, format string
		image        []byte
		want         string
	}{
		{"nothing", "raw", nil, "contains a Linux system"},
		{"zeros", "raw", make([]byte, 1<<20), "contains a Linux system"},
		{"only /boot", "raw", mbr[:4096*512], "contains a Linux system"},
		{"text as VHD", "vhd", bytes.Repeat([]byte("text"), 500), "not a VHD image"},
		{"text as VMDK", "vmdk", bytes.Repeat([]byte("text"), 500), "not a sparse VMDK image"},
		{"text as OVA", "ova", bytes.Repeat([]byte("text"), 500), "not an OVA archive"},
		{"a VMDK that is cut off", "vmdk", stream[:len(stream)/2], "damaged"},
		{"a VHD that is cut off", "vhd", dynamic[:len(dynamic)/2], "not a VHD image"},
		{"an unknown format", "vhdx", nil, "format vhdx are not supported; supported formats are raw, vhd, vmdk, ova, qcow2"},
		{"logical partitions in a loop", "raw", looped(), "form a loop"},
		{"another file system", "raw", append([]byte("XFSB"), make([]byte, 1<<20)...), "there is XFS on the whole disk"},
		{"text as QCOW2", "qcow2", bytes.Repeat([]byte("text"), 500), "not a QCOW2 image"},
		{"a QCOW2 that is cut off", "qcow2", qcow2[:len(qcow2)/2], "damaged"},
		{"a QCOW2 with a backing file", "qcow2", patched(qcow2, 15, 1), "has a backing file"},
		{"a QCOW2 with data in another file", "qcow2", patched(qcow2, 79, 4), "unsupported features (0x4)"},
		{"an encrypted QCOW2", "qcow2", patched(qcow2, 35, 1), "is encrypted"},
		{"a QCOW2 whose table is too small", "qcow2", patched(qcow2, 39, 0), "too small for its disk"},
		{"a QCOW2 with large clusters", "qcow2", patched(qcow2, 23, 22), "header is inconsistent"},
		{"a QCOW2 with clusters of any size", "qcow2", patched(qcow2, 23, 200), "header is inconsistent"},
	} {
		if _, err := files(test.image, test.format); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", test.name, err, test.want)
		}
	}
}

// patched returns a copy of an image with the byte at offset at replaced.
func patched(image []byte, at int, b byte) []byte {
	image = bytes.Clone(image)
	image[at] = b
	return image
}

// looped returns a disk with four extended partitions that contain each other.
func looped() []byte {
	image := make([]byte, 1<<20)
	for n := range 2 {
		table := image[n*512:][:512]
		copy(table[510:], "\x55\xaa")
		for i := range 4 {
			copy(table[446+16*i+4:], []byte{0x05, 0, 0, 0, byte(1 - n), 0, 0, 0, 1})
		}
	}
	return image
}

// TestDetect checks that images are recognized by their content.
func TestDetect(t *testing.T) {
	for _, name := range images {
		if image, format := load(t, name); disk.Detect(bytes.NewReader(image), int64(len(image))) != format {
			t.Errorf("%s is taken for %q", name, disk.Detect(bytes.NewReader(image), int64(len(image))))
		}
	}
	for want, image := range map[string]string{"": "text", "vhdx": "vhdxfile", "vmdk": "# Disk DescriptorFile\n"} {
		if got := disk.Detect(strings.NewReader(image), int64(len(image))); got != want {
			t.Errorf("%q is taken for %q, not %q", image, got, want)
		}
	}
}

// TestDetectOVA: an archive is an OVA if it begins like one, even if only its beginning is there, and
// not because there is a disk somewhere in it. One without a disk that can be read is an OVA too, so
// that the error says what is in it.
func TestDetectOVA(t *testing.T) {
	image, _ := load(t, "machine.ova")
	copy(image[bytes.Index(image, []byte("KDMV"))+56:], bytes.Repeat([]byte{0xff}, 8)) // the disk was written as a stream
	if got := disk.Detect(bytes.NewReader(image), 4096); got != "ova" {
		t.Errorf("the beginning of an OVA is taken for %q", got)
	}
	for _, test := range []struct {
		names       []string
		format, err string
	}{
		{[]string{"etc/", "bin/sh", "srv/disk.vmdk"}, "", ""},
		{[]string{"./", "./vm.OVF", "./vm-disk1.vmdk.gz"}, "ova", `the OVA archive contains no .vmdk file, but "./", "./vm.OVF", "./vm-disk1.vmdk.gz"`},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range test.names {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Format: tar.FormatUSTAR}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := disk.Detect(bytes.NewReader(b.Bytes()), int64(b.Len())); got != test.format {
			t.Errorf("%q is taken for %q", test.names, got)
		}
		if test.format == "" {
			continue
		}
		if _, err := files(b.Bytes(), test.format); err == nil || err.Error() != test.err {
			t.Errorf("%q: %v", test.names, err)
		}
	}
}

// FuzzOpen reads images with one damaged byte.
func FuzzOpen(f *testing.F) {
	for i := range images {
		f.Add(byte(i), []byte{0}, uint32(0), true)
	}
	f.Fuzz(func(t *testing.T, which byte, patch []byte, at uint32, fromEnd bool) {
		image, format := load(t, images[int(which)%len(images)])
		for i, b := range patch {
			where := (int(at) + i) % len(image)
			if fromEnd {
				where = len(image) - 1 - where
			}
			image[where] = b
		}
		d, err := disk.Open(bytes.NewReader(image), int64(len(image)), format)
		if err == nil {
			_, _ = d.Root() // any error is acceptable
		}
	})
}
