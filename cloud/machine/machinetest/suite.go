package machinetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bake/cloud/machine"
	"bake/cloud/network"
)

// Fixture is a driver to test.
type Fixture struct {
	Driver machine.Driver
	Dir    string   // an empty directory on a file system that the driver supports
	Layers []string // a root file system that boots and contains /bin/true
}

// TestDriver checks a driver against the contract of [machine.Driver]. It calls newFixture for each
// subtest.
func TestDriver(t *testing.T, newFixture func(*testing.T) Fixture) {
	for name, test := range map[string]func(*testing.T, Fixture){
		"layers":       testLayers,
		"left out":     testLeftOut,
		"whiteouts":    testWhiteouts,
		"escapes":      testEscapes,
		"volumes":      testVolumes,
		"bad streams":  testBadStreams,
		"removal":      testRemoval,
		"life":         testLife,
		"same disk":    testSameDisk,
		"freeze":       testFreeze,
		"command":      testCommand,
		"failed start": testFailedStart,
	} {
		t.Run(name, func(t *testing.T) { test(t, newFixture(t)) })
	}
}

var when = time.Unix(1700000000, 123456789)

// sample is a layer with one of every kind of file that a driver must keep.
func sample() []tar.Header {
	return []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "dir/", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: "dir/file", Mode: 0o4755, Size: 7},
		{Typeflag: tar.TypeLink, Name: "dir/same", Linkname: "dir/file"},
		{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600},
		{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "/etc/passwd", Mode: 0o777},
		{Typeflag: tar.TypeReg, Name: "marked", Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.mark": "x"}},
		{Typeflag: tar.TypeDir, Name: "secret/", Mode: 0o700},
		{Typeflag: tar.TypeReg, Name: "secret/" + strings.Repeat("long", 60), Mode: 0o600},
	}
}

// archive returns a tar stream of headers. The content of each file is a repeated letter.
func archive(t *testing.T, headers []tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Format = tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = when
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat("a", int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// entries returns the headers of a tar stream, keyed by name.
func entries(t *testing.T, stream []byte) map[string]*tar.Header {
	t.Helper()
	found := make(map[string]*tar.Header)
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = h
	}
}

func pack(t *testing.T, d machine.Driver, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := d.Pack(t.Context(), dir, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(t *testing.T, d machine.Driver, stream []byte, dir string) {
	t.Helper()
	if err := d.Unpack(t.Context(), bytes.NewReader(stream), dir); err != nil {
		t.Fatal(err)
	}
}

func clone(t *testing.T, d machine.Driver, src, dst string) error {
	t.Helper()
	from, err := os.Open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	return d.Clone(t.Context(), from, dst)
}

func testLayers(t *testing.T, f Fixture) {
	first, second, third := filepath.Join(f.Dir, "1"), filepath.Join(f.Dir, "2"), filepath.Join(f.Dir, "3")
	unpack(t, f.Driver, archive(t, sample()), first)
	one := pack(t, f.Driver, first)
	if !bytes.Equal(one, pack(t, f.Driver, first)) {
		t.Error("two packs of one layer differ")
	}
	unpack(t, f.Driver, one, second)
	if !bytes.Equal(one, pack(t, f.Driver, second)) {
		t.Error("a layer changes on the way through a tar stream")
	}
	if err := clone(t, f.Driver, first, third); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, pack(t, f.Driver, third)) {
		t.Error("a clone differs")
	}
	if err := clone(t, f.Driver, first, third); err == nil {
		t.Error("a clone replaced what was there")
	}

	got := entries(t, one)
	for _, want := range sample() {
		h := got[want.Name]
		switch {
		case h == nil:
			t.Errorf("%s is missing", want.Name)
		case h.Typeflag != want.Typeflag || h.Linkname != want.Linkname || h.Size != want.Size:
			t.Errorf("%s came back as %+v", want.Name, h)
		case h.Typeflag != tar.TypeLink && (h.Mode != want.Mode || !h.ModTime.Equal(when)):
			t.Errorf("%s has mode %o and time %v", want.Name, h.Mode, h.ModTime)
		case h.PAXRecords["SCHILY.xattr.user.mark"] != want.PAXRecords["SCHILY.xattr.user.mark"]:
			t.Errorf("%s has attributes %v", want.Name, h.PAXRecords)
		}
	}
	if len(got) != len(sample()) {
		t.Errorf("there are %d entries", len(got))
	}
}

// testLeftOut tests sockets and device nodes with two names each. Neither name of a socket is kept;
// device nodes may be kept or not.
func testLeftOut(t *testing.T, f Fixture) {
	dir := filepath.Join(f.Dir, "socket")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "a"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := clone(t, f.Driver, dir, dir+"-copy"); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{dir, dir + "-copy"} {
		if got := entries(t, pack(t, f.Driver, dir)); len(got) != 1 {
			t.Errorf("%s has %v", dir, got)
		}
	}
	device := filepath.Join(f.Dir, "device")
	unpack(t, f.Driver, archive(t, []tar.Header{
		{Typeflag: tar.TypeChar, Name: "null", Mode: 0o644, Devmajor: 1, Devminor: 3},
		{Typeflag: tar.TypeLink, Name: "same", Linkname: "null"},
	}), device)
	if got := entries(t, pack(t, f.Driver, device)); (got["null"] == nil) != (got["same"] == nil) {
		t.Errorf("of a device with two names there is %v", got)
	}
}

func testWhiteouts(t *testing.T, f Fixture) {
	dir := filepath.Join(f.Dir, "layer")
	unpack(t, f.Driver, archive(t, []tar.Header{
		{Typeflag: tar.TypeDir, Name: "opaque/", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: "opaque/.wh..wh..opq"},
		{Typeflag: tar.TypeReg, Name: "opaque/.wh.gone"},
		{Typeflag: tar.TypeReg, Name: "opaque/kept"},
	}), dir)
	st, err := os.Lstat(filepath.Join(dir, "opaque", "gone"))
	if err != nil || st.Mode()&os.ModeCharDevice == 0 || st.Sys().(*syscall.Stat_t).Rdev != 0 {
		t.Errorf("a whiteout is %v, %v", st, err)
	}
	got := entries(t, pack(t, f.Driver, dir))
	for _, name := range []string{"opaque/.wh..wh..opq", "opaque/.wh.gone", "opaque/kept"} {
		if got[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

// testVolumes tests a volume made from two layers: the upper one hides and replaces files of the
// lower one.
func testVolumes(t *testing.T, f Fixture) {
	lower, upper, dir := filepath.Join(f.Dir, "lower"), filepath.Join(f.Dir, "upper"), filepath.Join(f.Dir, "volume")
	unpack(t, f.Driver, archive(t, append(sample(),
		tar.Header{Typeflag: tar.TypeDir, Name: "opaque/", Mode: 0o755},
		tar.Header{Typeflag: tar.TypeReg, Name: "opaque/old", Mode: 0o644},
		tar.Header{Typeflag: tar.TypeReg, Name: "gone", Mode: 0o644},
	)), lower)
	unpack(t, f.Driver, archive(t, []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		{Typeflag: tar.TypeReg, Name: ".wh.gone"},
		{Typeflag: tar.TypeReg, Name: "link", Mode: 0o600, Size: 3},
		{Typeflag: tar.TypeDir, Name: "opaque/", Mode: 0o750},
		{Typeflag: tar.TypeReg, Name: "opaque/.wh..wh..opq"},
		{Typeflag: tar.TypeReg, Name: "opaque/new", Mode: 0o644},
	}), upper)
	if err := f.Driver.MakeVolume(t.Context(), dir, []string{upper, lower}, 1<<30); err != nil {
		t.Fatal(err)
	}
	content := pack(t, f.Driver, filepath.Join(dir, machine.VolumeContent))
	var merged bytes.Buffer
	if err := f.Driver.PackMerged(t.Context(), []string{upper, lower}, &merged); err != nil || !bytes.Equal(merged.Bytes(), content) {
		t.Errorf("packing the two layers gives %d bytes, other than the %d of the volume: %v", merged.Len(), len(content), err)
	}
	got := entries(t, content)
	for _, name := range []string{"gone", ".wh.gone", "opaque/old", "opaque/.wh..wh..opq"} {
		if got[name] != nil {
			t.Errorf("the volume has %s", name)
		}
	}
	if h := got["link"]; h == nil || h.Typeflag != tar.TypeReg || h.Size != 3 {
		t.Errorf("link is %+v", h)
	}
	if got["opaque/new"] == nil || got["opaque/"] == nil || got["opaque/"].Mode != 0o750 || got["dir/same"] == nil {
		t.Errorf("the volume has %v", got)
	}
	blank := filepath.Join(f.Dir, "blank")
	if err := f.Driver.MakeVolume(t.Context(), blank, nil, 1<<30); err != nil {
		t.Fatal(err)
	}
	if got := entries(t, pack(t, f.Driver, filepath.Join(blank, machine.VolumeContent))); len(got) != 1 {
		t.Errorf("a blank volume has %v", got)
	}
	if err := f.Driver.MakeVolume(t.Context(), blank, nil, 1<<30); err == nil {
		t.Error("a volume was made where one is")
	}
}

func testEscapes(t *testing.T, f Fixture) {
	outside := filepath.Join(f.Dir, "outside")
	if err := os.Mkdir(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(outside, "victim")
	if err := os.WriteFile(victim, []byte("safe"), 0o666); err != nil {
		t.Fatal(err)
	}
	file := func(name string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: 1}
	}
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	hard := func(name, to string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to} }
	for name, hostile := range map[string][]tar.Header{
		"dots":                  {file("../outside/new")},
		"absolute":              {file(outside + "/new")},
		"link to a directory":   {link("d", outside), file("d/new")},
		"relative link":         {link("d", "../outside"), file("d/new")},
		"link to a file":        {link("f", victim), file("f")},
		"chain of links":        {link("a", "."), link("a/b", "../.."), file("a/b/outside/new")},
		"link in place of dir":  {{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o777}, link("d", outside), file("d/new")},
		"hard link":             {hard("h", "../outside/victim"), file("h")},
		"absolute hard link":    {hard("h", victim), file("h")},
		"hard link over a link": {link("d", outside), hard("h", "d/victim"), file("h")},
		"whiteout":              {link("d", outside), file("d/.wh.victim")},
		"directory over a link": {link("d", outside), {Typeflag: tar.TypeDir, Name: "d", Mode: 0o700}},
		"whiteout of dots":      {{Typeflag: tar.TypeReg, Name: "d/.wh..."}, {Typeflag: tar.TypeReg, Name: ".wh..."}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(f.Dir, "layer-"+strings.ReplaceAll(name, " ", "-"))
			err := f.Driver.Unpack(t.Context(), bytes.NewReader(archive(t, hostile)), dir)
			names, _ := filepath.Glob(filepath.Join(outside, "*"))
			text, _ := os.ReadFile(victim)
			st, statErr := os.Stat(outside)
			if len(names) != 1 || string(text) != "safe" || statErr != nil || st.Mode().Perm() != 0o777 {
				t.Errorf("outside is now %v with %q and mode %v (error of unpack: %v)", names, text, st.Mode(), err)
			}
		})
	}
}

func testBadStreams(t *testing.T, f Fixture) {
	good := archive(t, sample())
	for name, stream := range map[string]io.Reader{
		"cut":     bytes.NewReader(good[:len(good)/2]),
		"garbage": strings.NewReader(strings.Repeat("garbage", 1000)),
	} {
		if err := f.Driver.Unpack(t.Context(), stream, filepath.Join(f.Dir, name)); err == nil {
			t.Errorf("a %s stream was unpacked", name)
		}
	}
	broken := errors.New("the line is dead")
	r := io.MultiReader(bytes.NewReader(good[:1024]), failing{broken})
	if err := f.Driver.Unpack(t.Context(), r, filepath.Join(f.Dir, "broken")); !errors.Is(err, broken) {
		t.Errorf("the error of a broken reader is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Driver.Unpack(ctx, bytes.NewReader(good), filepath.Join(f.Dir, "cancelled")); !errors.Is(err, context.Canceled) {
		t.Errorf("the error of a cancelled unpack is %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func testRemoval(t *testing.T, f Fixture) {
	dir := filepath.Join(f.Dir, "layer")
	unpack(t, f.Driver, archive(t, sample()), dir)
	for range 2 {
		if err := f.Driver.Remove(t.Context(), dir); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after removal: %v", err)
		}
	}
}

func spec(f Fixture, id string) machine.Spec {
	return machine.Spec{
		ID: id, Dir: filepath.Join(f.Dir, id), Layers: f.Layers, Hostname: "ip-10-9-0-5", First: true, User: "admin",
		Console: filepath.Join(f.Dir, id+".console"),
		Network: network.Config{Private: netip.MustParseAddr("10.9.0.5"), Subnet: netip.MustParsePrefix("10.9.0.0/24"), Public: netip.MustParseAddr("127.9.77.5"), Policy: closed{}},
	}
}

// closed is a network policy that allows nothing.
type closed struct{}

func (closed) Ingress(network.Proto, netip.Addr, uint16) bool { return false }
func (closed) Egress(network.Proto, netip.Addr, uint16) bool  { return false }
func (closed) Open() []network.PortRange                      { return nil }

func start(t *testing.T, f Fixture, s machine.Spec) machine.Machine {
	t.Helper()
	m, err := f.Driver.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Kill() })
	return m
}

func running(m machine.Machine) bool {
	select {
	case <-m.Done():
		return false
	default:
		return true
	}
}

func wait(t *testing.T, m machine.Machine) machine.Exit {
	t.Helper()
	select {
	case <-m.Done():
		return m.Exit()
	case <-time.After(60 * time.Second):
		t.Fatal("the machine does not end")
		return machine.Exit{}
	}
}

func testLife(t *testing.T, f Fixture) {
	s := spec(f, "i-life")
	ctx, cancel := context.WithCancel(t.Context())
	m, err := f.Driver.Start(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Kill()
	cancel()
	if !running(m) {
		t.Error("the machine ended with the context of its start")
	}
	if b, err := os.ReadFile(s.Console); err != nil || len(b) == 0 {
		t.Errorf("the console has %d bytes, %v", len(b), err)
	}
	if _, err := f.Driver.Start(t.Context(), s); err == nil {
		t.Error("one disk was booted twice at a time")
	}
	if _, err := m.Dial(t.Context(), 1); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialling a port that nobody listens on: %v", err)
	}
	m.NetworkChanged()
	for range 2 {
		if err := m.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if running(m) {
			t.Error("it runs after Stop")
		}
	}
	if e := m.Exit(); e.Reason != machine.Stopped || e.Err != nil {
		t.Errorf("exit is %+v", e)
	}
	if err := m.Kill(); err != nil {
		t.Errorf("kill of a stopped machine: %v", err)
	}
	if _, err := m.Dial(t.Context(), 1); err == nil {
		t.Error("a stopped machine answers")
	}
	if m.Freeze(t.Context()) == nil {
		t.Error("a stopped machine freezes")
	}
}

func testSameDisk(t *testing.T, f Fixture) {
	s := spec(f, "i-disk")
	m := start(t, f, s)
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	if e := wait(t, m); e.Reason != machine.Stopped {
		t.Errorf("exit of a killed machine is %+v", e)
	}
	upper := filepath.Join(s.Dir, "upper")
	before := pack(t, f.Driver, upper)
	s.First = false
	m = start(t, f, s)
	m.Kill()
	after := entries(t, pack(t, f.Driver, upper))
	for name := range entries(t, before) {
		// Daemons may clean up such files at boot.
		if strings.HasPrefix(name, "etc/") && after[name] == nil {
			t.Errorf("%s is gone after another boot", name)
		}
	}
	image := filepath.Join(f.Dir, "image")
	if err := os.Rename(upper, image); err != nil {
		t.Fatal(err)
	}
	m = start(t, f, s)
	m.Kill()
	if st, err := os.Stat(upper); err != nil || !st.IsDir() {
		t.Errorf("no new upper directory: %v", err)
	}
	next := spec(f, "i-next")
	next.Layers = append([]string{image}, s.Layers...)
	start(t, f, next)
}

func testFreeze(t *testing.T, f Fixture) {
	s := spec(f, "i-cold")
	m := start(t, f, s)
	for range 2 {
		if err := m.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := clone(t, f.Driver, filepath.Join(s.Dir, "upper"), filepath.Join(f.Dir, "copy")); err != nil {
			t.Error(err)
		}
		if err := f.Driver.Remove(t.Context(), filepath.Join(f.Dir, "copy")); err != nil {
			t.Error(err)
		}
		if err := m.Thaw(); err != nil {
			t.Error(err)
		}
	}
	for range 2 { // by two independent callers
		if err := m.Freeze(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := m.Stop(t.Context()); err != nil {
		t.Errorf("stop of a frozen machine: %v", err)
	}
	if m.Thaw() == nil {
		t.Error("the machine was suspended until it was thawed, though it was stopped")
	}
	if e := wait(t, m); e.Reason != machine.Stopped {
		t.Errorf("exit is %+v", e)
	}
}

func testCommand(t *testing.T, f Fixture) {
	s := spec(f, "i-command")
	s.Command, s.Network = []string{"/bin/true"}, network.Config{}
	if e := wait(t, start(t, f, s)); e.Reason != machine.PowerOff || e.Err != nil {
		t.Errorf("exit is %+v", e)
	}
}

func testFailedStart(t *testing.T, f Fixture) {
	s := spec(f, "i-none")
	s.Layers = []string{filepath.Join(f.Dir, "no-such-layer")}
	if _, err := f.Driver.Start(t.Context(), s); err == nil {
		t.Error("a machine without its layer started")
	}
	s.Layers = f.Layers
	m := start(t, f, s)
	if !running(m) {
		t.Error("a failed start is in the way of the next")
	}
}
