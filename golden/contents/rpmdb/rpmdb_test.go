package rpmdb_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	// Its databases are read here.
	_ "github.com/anchore/go-rpmdb/pkg/db"

	"bake/golden/contents/rpmdb"
)

// samples is the folder of the test databases of the module go-rpmdb, which are those of whole
// distributions.
func samples(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/anchore/go-rpmdb").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "pkg", "testdata")
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestRead: the packages and all their fields are those that another reader finds.
func TestRead(t *testing.T) {
	for name, want := range map[string]string{
		"cbl-mariner-2.0/rpmdb.sqlite":     "129 1a45d30f10d7bead",
		"fedora35/rpmdb.sqlite":            "137 e5bc8c521eda264d",
		"oraclelinux-9/rpmdb.sqlite":       "186 4985c14da28ae863",
		"rockylinux-9/rpmdb.sqlite":        "142 f56c07fe519a88e0",
		"sle15-bci/Packages.db":            "35 356442f9435f6b87",
		"centos5-plain/Packages":           "110 7e0ee5afc3316969",
		"centos6-plain/Packages":           "129 b3989316a1e0858d",
		"centos7-plain/Packages":           "144 ab6fd2193dd21648",
		"centos8-modularitylabel/Packages": "517 fbf6bb9aca2aa680",
		"libuuid/Packages":                 "1 35beaf2462b3df07",
		"ubi8-s390x/Packages":              "181 4a8e1e57669f8df1", // big-endian
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, err := rpmdb.Read(read(t, filepath.Join(samples(t), name)), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := digest(list); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func digest(list []rpmdb.Package) string {
	h := sha256.New()
	for _, p := range list {
		epoch := "-"
		if p.Epoch != nil {
			epoch = fmt.Sprint(*p.Epoch)
		}
		fmt.Fprintln(h, p.Name, epoch, p.Version, p.Release, p.Arch, p.License, p.Vendor, p.SourceRPM, len(p.Files))
	}
	return fmt.Sprintf("%d %x", len(list), h.Sum(nil)[:8])
}

// TestLogOfSQLite: changes that are only in the log count, up to the end of the last
// transaction and the first damaged frame.
func TestLogOfSQLite(t *testing.T) {
	db := read(t, filepath.Join(samples(t), "fedora35/rpmdb.sqlite"))
	const size = 4096
	whole := slices.Clone(db[1*size : 2*size])
	want := digest(must(rpmdb.Read(db, nil)))
	clear(db[1*size : 2*size])
	if _, err := rpmdb.Read(db, nil); err == nil {
		t.Fatal("the page that is taken away is not used")
	}
	for name, c := range map[string]struct {
		log []byte
		ok  bool
	}{
		"committed":      {walOf(size, frame{2, 100, whole}), true},
		"the last wins":  {walOf(size, frame{2, 100, make([]byte, size)}, frame{2, 100, whole}), true},
		"open":           {walOf(size, frame{2, 0, whole}), false},
		"after open":     {walOf(size, frame{2, 0, whole}, frame{3, 100, db[2*size : 3*size]}), true},
		"cut off":        {walOf(size, frame{2, 100, whole})[:size], false},
		"damaged":        {spoil(walOf(size, frame{2, 100, whole}), size), false},
		"damaged intro":  {spoil(walOf(size, frame{2, 100, whole}), 9), false},
		"damaged salt":   {spoil(walOf(size, frame{2, 100, whole}), 32+9), false},
		"another's size": {walOf(512, frame{2, 100, whole[:512]}), false},
	} {
		list, err := rpmdb.Read(db, c.log)
		if (err == nil) != c.ok || c.ok && digest(list) != want {
			t.Errorf("%s: %v, %s", name, err, digest(list))
		}
	}
}

func must(list []rpmdb.Package, err error) []rpmdb.Package {
	if err != nil {
		panic(err)
	}
	return list
}

type frame struct {
	page, commit uint32
	data         []byte
}

func walOf(size uint32, frames ...frame) (log []byte) {
	var a, b uint32
	sum := func(data []byte) {
		for ; len(data) > 0; data = data[8:] {
			a += binary.LittleEndian.Uint32(data) + b
			b += binary.LittleEndian.Uint32(data[4:]) + a
		}
	}
	words := func(list ...uint32) {
		for _, w := range list {
			log = binary.BigEndian.AppendUint32(log, w)
		}
	}
	words(0x377f0682, 3007000, size, 0, 4711, 4712)
	sum(log)
	words(a, b)
	for _, f := range frames {
		at := len(log)
		words(f.page, f.commit)
		sum(log[at:])
		sum(f.data)
		words(4711, 4712, a, b)
		log = append(log, f.data...)
	}
	return log
}

func spoil(b []byte, at int) []byte {
	b[at]++
	return b
}

// FuzzRead: whatever a machine sends, reading it ends. TestManyFiles: file names take more memory
// than they have bytes, so they are limited.
func TestManyFiles(t *testing.T) {
	const files, packages = 1 << 20, 3
	u32 := func(order binary.AppendByteOrder, list ...uint32) (b []byte) {
		for _, n := range list {
			b = order.AppendUint32(b, n)
		}
		return b
	}
	values := append([]byte("a\x00"), make([]byte, files)...)
	header := slices.Concat(u32(binary.BigEndian, 2, uint32(len(values)), 1000, 6, 0, 1, 1027, 8, 2, files), values)
	slots := append([]byte("RpmP"), u32(binary.LittleEndian, 0, 0, 1, 0, 0, 0, 0)...)
	var blobs []byte
	for i := range uint32(packages) {
		slots = append(append(slots, "Slot"...), u32(binary.LittleEndian, i+1, uint32(4096+len(blobs))/16, 0)...)
		blobs = append(append(blobs, "BlbS"...), u32(binary.LittleEndian, i+1, 0, uint32(len(header)))...)
		blobs = append(blobs, header...)
		blobs = append(blobs, make([]byte, 16-len(blobs)%16)...)
	}
	for len(slots) < 4096 {
		slots = append(slots, "Slot\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	}
	if _, err := rpmdb.Read(append(slots, blobs...), nil); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

func FuzzRead(f *testing.F) {
	dir := samples(f)
	for _, name := range []string{"libuuid/Packages", "sle15-bci/Packages.db"} {
		db := read(f, filepath.Join(dir, name))
		f.Add(db[:min(len(db), 1<<17)], []byte(nil))
	}
	db := read(f, filepath.Join(dir, "fedora35/rpmdb.sqlite"))
	f.Add(db[:1<<16], walOf(512, frame{2, 3, make([]byte, 512)}))
	f.Fuzz(func(t *testing.T, db, log []byte) {
		list, err := rpmdb.Read(db, log)
		if err != nil && len(list) > 0 {
			t.Error("there are packages in spite of an error")
		}
		total := 0
		for _, p := range list {
			total += len(p.Name) + len(p.Version) + len(p.License)
			for _, file := range p.Files {
				total += len(file)
			}
		}
		if total > 8*(len(db)+len(log)) {
			t.Errorf("%d bytes became %d", len(db)+len(log), total)
		}
	})
}
