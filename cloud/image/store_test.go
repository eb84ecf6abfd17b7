package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bake/cloud/confined"
	"bake/cloud/image"
	"bake/cloud/image/debian/debiantest"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
)

// openStore opens a store in dir whose driver uses plain files.
func openStore(t *testing.T, dir string) *image.Store {
	t.Helper()
	s, err := image.Open(dir, &machinetest.Driver{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// makeUpper creates a directory like the upper directory of a stopped machine.
func makeUpper(t *testing.T, files ...string) string {
	t.Helper()
	upper := filepath.Join(t.TempDir(), "upper")
	for _, name := range files {
		path := filepath.Join(upper, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return upper
}

// archive returns a tar of regular files.
func archive(t testing.TB, files ...string) []byte {
	t.Helper()
	var entries []tar.Header
	for _, name := range files {
		for i, c := range name {
			if dir := name[:i] + "/"; c == '/' && !slices.ContainsFunc(entries, func(h tar.Header) bool { return h.Name == dir }) {
				entries = append(entries, tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755})
			}
		}
		entries = append(entries, tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644})
	}
	return debiantest.Tar(t, entries, func(name string) string { return name })
}

// listing returns the paths of the files below dir, one on each line.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, "\n")
}

// layerFiles returns the listing of a layer.
func layerFiles(t *testing.T, s *image.Store, id image.LayerID) string {
	t.Helper()
	path, err := s.Path(id)
	if err != nil {
		t.Fatal(err)
	}
	return listing(t, path)
}

// freeze makes a layer of the directory upper.
func freeze(ctx context.Context, s *image.Store, upper string) (image.LayerID, error) {
	id := image.NewLayerID()
	return id, s.Freeze(ctx, id, confined.Dir{Base: filepath.Dir(upper), Name: filepath.Base(upper)})
}

func TestFreeze(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	upper := makeUpper(t, "etc/a", "b")
	id, err := freeze(t.Context(), s, upper)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(upper); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the upper directory is still there: %v", err)
	}
	for _, s := range []*image.Store{s, openStore(t, dir)} {
		if got := layerFiles(t, s, id); got != "b\netc/a" {
			t.Errorf("layer holds %q", got)
		}
	}
	if _, err := freeze(t.Context(), s, upper); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("freeze what is not there: %v", err)
	}
}

func TestClone(t *testing.T) {
	s := openStore(t, t.TempDir())
	upper := makeUpper(t, "a")
	id, err := s.Clone(t.Context(), confined.Dir{Base: filepath.Dir(upper), Name: filepath.Base(upper)})
	if err != nil {
		t.Fatal(err)
	}
	if got := layerFiles(t, s, id) + " " + listing(t, upper); got != "a a" {
		t.Errorf("layer and original hold %q", got)
	}
}

func TestImport(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	id, err := s.Import(t.Context(), bytes.NewReader(archive(t, "etc/a", "b")))
	if err != nil {
		t.Fatal(err)
	}
	if got := layerFiles(t, s, id); got != "b\netc/a" {
		t.Errorf("layer holds %q", got)
	}
	size, err := s.Size(t.Context(), id)
	if err != nil || size < 1024 {
		t.Errorf("size %d, %v", size, err)
	}

	whole := archive(t, "a", "b", "c")
	for _, cut := range []int{0, 100, 512, 600, 1024, 2048, 3072} { // 3072 is the end of the last file
		if _, err := s.Import(t.Context(), bytes.NewReader(whole[:cut])); err == nil {
			t.Errorf("the first %d bytes of an archive became a layer", cut)
		}
	}
	if left := listing(t, filepath.Join(dir, "tmp")); left != "" {
		t.Errorf("left in tmp: %s", left)
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "layers")); len(entries) != 2 {
		t.Errorf("the layers are %v", entries)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	id, err := freeze(t.Context(), s, makeUpper(t, "a"))
	if err != nil {
		t.Fatal(err)
	}
	base := image.Base{Name: "b", Layers: []image.LayerID{id}}
	if err := s.SaveBase(base); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), id); err == nil || !strings.Contains(err.Error(), "belongs to base b") {
		t.Errorf("remove a layer in use: %v", err)
	}
	if err := s.RemoveBase("b"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time, it no longer exists
		if err := s.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Path(id); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("path of a removed layer: %v", err)
	}
	if left := listing(t, filepath.Join(dir, "layers")); left != "" {
		t.Errorf("left: %s", left)
	}
	for _, bad := range []image.LayerID{"", "..", "layer-../../x", "/etc"} {
		if err := s.Remove(t.Context(), bad); !errors.Is(err, image.ErrNotFound) {
			t.Errorf("remove %q: %v", bad, err)
		}
	}
}

func TestCollect(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	ids := map[string]image.LayerID{}
	for _, name := range []string{"image", "base", "garbage", "young"} {
		id, err := freeze(t.Context(), s, makeUpper(t, name))
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = id
		if name != "young" {
			age(t, dir, id, image.CollectAfter+time.Minute)
		}
	}
	if err := s.SaveBase(image.Base{Name: "b", Layers: []image.LayerID{ids["base"]}}); err != nil {
		t.Fatal(err)
	}
	gone, err := s.Collect(t.Context(), func() ([]image.LayerID, []string) { return []image.LayerID{ids["image"]}, nil })
	if err != nil || len(gone) != 1 || gone[0] != ids["garbage"] {
		t.Errorf("collected %v, %v; want %s", gone, err, ids["garbage"])
	}
	for _, name := range []string{"image", "base", "young"} {
		if got := layerFiles(t, s, ids[name]); got != name {
			t.Errorf("layer %s holds %q", name, got)
		}
	}
}

// TestCollectBases checks that an imported base is deleted when no publication names it and it is
// not in use.
func TestCollectBases(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	old := time.Now().Add(-image.CollectAfter - time.Minute)
	made := map[string]time.Time{"import-1-replaced": old, "import-2-used": old, "import-3-published": old, "import-4-young": time.Now(), "debian-12": old, "mine": old}
	for name, created := range made {
		id, err := freeze(t.Context(), s, makeUpper(t, name))
		if err != nil {
			t.Fatal(err)
		}
		age(t, dir, id, image.CollectAfter+time.Minute)
		if err := s.SaveBase(image.Base{Name: name, Layers: []image.LayerID{id}, Created: created}); err != nil {
			t.Fatal(err)
		}
	}
	for _, base := range []string{"import-1-replaced", "import-3-published"} {
		if err := s.Publish(image.Publication{Owner: "111122223333", Name: base, Base: base}); err != nil {
			t.Fatal(err)
		}
	}
	inUse := func() ([]image.LayerID, []string) { return nil, []string{"import-2-used"} }
	if gone, err := s.Collect(t.Context(), inUse); err != nil || len(gone) != 0 {
		t.Errorf("all is published or used, and %v is collected, %v", gone, err)
	}
	if err := s.Unpublish("111122223333", "import-1-replaced"); err != nil {
		t.Fatal(err)
	}
	if gone, err := s.Collect(t.Context(), inUse); err != nil || len(gone) != 1 {
		t.Errorf("collected layers: %v, %v", gone, err)
	}
	for name := range made {
		if _, err := s.Base(name); errors.Is(err, image.ErrNotFound) != (name == "import-1-replaced") {
			t.Errorf("base %s: %v", name, err)
		}
	}
}

// TestHold checks that Collect deletes no old layer while the store is held, nor afterwards if the
// layer has come into use by then.
func TestHold(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	release, err := s.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, err := freeze(t.Context(), s, makeUpper(t, "a")) // does not wait for the hold
	if err != nil {
		t.Fatal(err)
	}
	age(t, dir, id, image.CollectAfter+time.Minute)
	var named atomic.Pointer[[]image.LayerID]
	named.Store(&[]image.LayerID{})
	collected := make(chan error, 1)
	go func() {
		gone, err := s.Collect(t.Context(), func() ([]image.LayerID, []string) { return *named.Load(), nil })
		if len(gone) > 0 {
			err = fmt.Errorf("collected %v, %w", gone, err)
		}
		collected <- err
	}()
	select {
	case err := <-collected:
		t.Errorf("collected while the store was held: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	named.Store(&[]image.LayerID{id})
	release()
	if err := <-collected; err != nil || !s.Has(id) {
		t.Errorf("there %v: %v", s.Has(id), err)
	}
}

// TestSizeOfRemoved checks that a layer that is removed while it is being measured stays removed.
func TestSizeOfRemoved(t *testing.T) {
	dir := t.TempDir()
	driver := &packing{Driver: &machinetest.Driver{}}
	s, err := image.Open(dir, driver)
	if err != nil {
		t.Fatal(err)
	}
	id, err := freeze(t.Context(), s, makeUpper(t, "a"))
	if err != nil {
		t.Fatal(err)
	}
	driver.packed = func() {
		if err := s.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Size(t.Context(), id); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("its size: %v", err)
	}
	if left := listing(t, filepath.Join(dir, "layers")); left != "" {
		t.Errorf("left: %s", left)
	}
}

// packing is a driver that calls packed after it has packed a layer.
type packing struct {
	machine.Driver
	packed func()
}

func (p *packing) Pack(ctx context.Context, dir string, w io.Writer) error {
	err := p.Driver.Pack(ctx, dir, w)
	p.packed()
	return err
}

// age changes the creation time of a layer.
func age(t *testing.T, dir string, id image.LayerID, by time.Duration) {
	t.Helper()
	path := filepath.Join(dir, "layers", string(id)+".json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(b, &record); err != nil {
		t.Fatal(err)
	}
	record["created"] = time.Now().Add(-by).UTC()
	if b, err = json.Marshal(record); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPathsLimit(t *testing.T) {
	s := openStore(t, t.TempDir())
	if _, err := s.Paths(make([]image.LayerID, image.MaxLayers+1)); err == nil || !strings.Contains(err.Error(), "501 layers") {
		t.Errorf("error %v", err)
	}
}

// Unfinished work of dead processes is deleted, unless another process is working.
func TestOpenCleans(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	keep, err := freeze(t.Context(), s, makeUpper(t, "keep"))
	if err != nil {
		t.Fatal(err)
	}
	leave := func() {
		t.Helper()
		for _, name := range []string{"layers/layer-0123456789abcdef/etc/a", "tmp/work-1/content/a", "layers/.record-1", "bases/.record-2", "cache/.download-3"} {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	leave()
	// An import that waits for its archive holds the store.
	r, w := io.Pipe()
	imported := make(chan error, 1)
	go func() {
		_, err := s.Import(context.Background(), r)
		imported <- err
	}()
	if _, err := w.Write(archive(t, "a")[:512]); err != nil {
		t.Fatal(err)
	}
	openStore(t, dir)
	if _, err := os.Stat(filepath.Join(dir, "tmp/work-1")); err != nil {
		t.Errorf("cleaned while somebody was at work: %v", err)
	}
	w.Close()
	<-imported

	openStore(t, dir)
	want := "lock\nlayers/" + string(keep) + ".json\nlayers/" + string(keep) + "/keep"
	if got := listing(t, dir); !sameLines(got, want) {
		t.Errorf("after cleaning:\n%s\nwant:\n%s", got, want)
	}
}

func sameLines(a, b string) bool {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// childEnv makes this test program run as the child of a test, in the store that the variable
// names.
const childEnv = "BAKE_IMAGE_TEST_CHILD"

// TestKill repeatedly kills a process that makes layers and bases, at random moments: everything
// that remains must be complete.
func TestKill(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		s := openStore(t, dir)
		for n := 0; ; n++ {
			var id image.LayerID
			var err error
			if n%2 == 0 {
				id, err = freeze(t.Context(), s, makeUpper(t, "a", "b", "c"))
			} else {
				id, err = s.Import(t.Context(), bytes.NewReader(archive(t, "a", "b", "c")))
			}
			if err == nil {
				err = s.SaveBase(image.Base{Name: fmt.Sprintf("base-%d", n%5), Layers: []image.LayerID{id}})
			}
			if err != nil {
				fmt.Println("child:", err)
				os.Exit(1)
			}
		}
	}
	dir := t.TempDir()
	scratch := t.TempDir() // temporary files of the child
	layers := 0
	for round := range 15 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), childEnv+"="+dir, "TMPDIR="+scratch)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Kill it at any moment after it has started.
		wait := time.Duration(rand.IntN(30)) * time.Millisecond
		deadline := time.Now().Add(time.Minute)
		for {
			records, _ := filepath.Glob(filepath.Join(dir, "layers", "*.json"))
			if len(records) > layers {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the child makes no layers: %s", out.String())
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(wait)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the child ended by itself: %v: %s", err, out.String())
		}

		s := openStore(t, dir)
		entries, err := os.ReadDir(filepath.Join(dir, "layers"))
		if err != nil {
			t.Fatal(err)
		}
		layers = 0
		for _, e := range entries {
			if e.IsDir() {
				layers++
				if got := layerFiles(t, s, image.LayerID(e.Name())); got != "a\nb\nc" {
					t.Fatalf("round %d: layer %s holds %q", round, e.Name(), got)
				}
			}
		}
		// Each killed process may leave one record without a layer, which Collect deletes.
		if left := len(entries) - 2*layers; left < 0 || left > round+1 {
			t.Fatalf("round %d: %d layers and %d entries", round, layers, len(entries))
		}
		bases, err := s.Bases()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range bases {
			if _, err := s.Paths(b.Layers); err != nil {
				t.Fatalf("round %d: base %s: %v", round, b.Name, err)
			}
		}
		if left := listing(t, filepath.Join(dir, "tmp")); left != "" {
			t.Fatalf("round %d: left in tmp: %s", round, left)
		}
	}
}

// TestFull fills the disk of a store.
func TestFull(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		testFull(t, dir)
		return
	}
	// The small disk is a tmpfs in the child's own mount namespace.
	cmd := exec.Command(os.Args[0], "-test.run=^TestFull$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("no user namespaces: %v", err)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFull")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func testFull(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,nr_inodes=200"); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(dir, "store")
	s := openStore(t, store)
	upper := filepath.Join(dir, "upper")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.WriteFile(filepath.Join(upper, "a"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	check := func(err error) {
		t.Helper()
		if !errors.Is(err, image.ErrFull) || !strings.Contains(err.Error(), "disk full in the store "+store) {
			t.Errorf("error %v", err)
		}
		if after := listing(t, dir); after != before {
			t.Errorf("something was left:\n%s\nwas\n%s", after, before)
		}
	}
	large := debiantest.Tar(t, []tar.Header{{Typeflag: tar.TypeReg, Name: "large", Mode: 0o644}}, func(string) string { return strings.Repeat("x", 2<<20) })
	_, err := s.Import(t.Context(), bytes.NewReader(large))
	check(err)

	// There is no inode for the record of a layer: the machine must keep its disk.
	fill := filepath.Join(dir, "fill")
	if err := os.Mkdir(fill, 0o755); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		if err := os.WriteFile(filepath.Join(fill, fmt.Sprint(n)), nil, 0o644); err != nil {
			break
		}
	}
	before = listing(t, dir)
	_, err = freeze(t.Context(), s, upper)
	check(err)
	if err := os.RemoveAll(fill); err != nil {
		t.Fatal(err)
	}
	if _, err := freeze(t.Context(), s, upper); err != nil {
		t.Errorf("with room again: %v", err)
	}

	other := t.TempDir() // another file system
	_, err = freeze(t.Context(), s, other)
	if err == nil || !strings.Contains(err.Error(), "on another file system than the image store") {
		t.Errorf("freeze across file systems: %v", err)
	}
}

// TestIncompleteBase: a base whose layers have been deleted from the store, or whose record is
// damaged, is an error that says what to do, before a machine is started from it.
func TestIncompleteBase(t *testing.T) {
	for name, remedy := range map[string]string{"debian-12": "bake cloud base debian-12 -replace", "mine": "bake cloud import"} {
		dir := t.TempDir()
		s := openStore(t, dir)
		id, err := freeze(t.Context(), s, makeUpper(t, "file"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SaveBase(image.Base{Name: name, Layers: []image.LayerID{id}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ensure(t.Context(), name, image.EnsureOptions{}); err != nil {
			t.Errorf("%s is complete: %v", name, err)
		}
		layer := filepath.Join(dir, "layers", string(id)+".json")
		if err := os.Remove(layer); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ensure(t.Context(), name, image.EnsureOptions{}); err == nil || !strings.Contains(err.Error(), layer) || !strings.HasSuffix(err.Error(), remedy) {
			t.Errorf("%s lacks a layer: %v", name, err)
		}
		base := filepath.Join(dir, "bases", name+".json")
		if err := os.Truncate(base, 20); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Bases(); err == nil || !strings.Contains(err.Error(), base+" is damaged: ") || !strings.Contains(err.Error(), "; move it ") {
			t.Errorf("%s is damaged: %v", name, err)
		}
	}
}
