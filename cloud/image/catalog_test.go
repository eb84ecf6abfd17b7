package image_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bake/cloud/image"
	"bake/cloud/image/debian/debiantest"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
)

func TestBuiltinPublications(t *testing.T) {
	s := openStore(t, t.TempDir())
	all, err := s.Publications()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 2 {
		t.Fatalf("only %d", len(all))
	}
	all = slices.DeleteFunc(all, func(p image.Publication) bool { return p.Base != "debian-12" })
	newest := slices.MaxFunc(all, func(a, b image.Publication) int { return a.CreationDate.Compare(b.CreationDate) })
	want := image.Publication{
		Owner:          "136693071363",
		OwnerAlias:     "amazon",
		Name:           "debian-12-" + runtime.GOARCH + "-20251006-2257",
		Description:    "Debian 12 (20251006-2257)",
		Architecture:   image.EC2Arch(runtime.GOARCH),
		RootDeviceName: "/dev/xvda",
		VolumeType:     "gp3",
		Size:           8,
		CreationDate:   time.Date(2025, 10, 6, 6, 0, 0, 0, time.UTC),
		LoginUser:      "admin",
		Base:           "debian-12",
		Parameters: []string{
			"/aws/service/debian/release/12/20251006-2257/" + runtime.GOARCH, "/aws/service/debian/release/12/latest/" + runtime.GOARCH,
		},
	}
	if d := cmp.Diff(want, newest); d != "" {
		t.Errorf("the newest: %s", d)
	}
	if err := s.Unpublish(newest.Owner, newest.Name); err == nil || !strings.Contains(err.Error(), "built in") {
		t.Errorf("unpublish it: %v", err)
	}
}

func TestPublish(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	id, err := freeze(t.Context(), s, makeUpper(t, "a"))
	if err != nil {
		t.Fatal(err)
	}
	base := image.Base{Name: "mine", Layers: []image.LayerID{id}, Arch: "amd64", User: "ops", RootDevice: "/dev/sda1", Created: time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)}
	if err := s.SaveBase(base); err != nil {
		t.Fatal(err)
	}
	p := image.Publication{Owner: "111122223333", Name: "team/golden image (v1)", Description: "ours", Base: "mine"}
	if err := s.Publish(p); err != nil {
		t.Fatal(err)
	}
	find := func(s *image.Store) (image.Publication, bool) {
		all, err := s.Publications()
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(q image.Publication) bool { return q.Owner == p.Owner })
		if i < 0 {
			return image.Publication{}, false
		}
		return all[i], true
	}
	want := p
	want.Architecture, want.RootDeviceName, want.LoginUser, want.CreationDate = "x86_64", "/dev/sda1", "ops", base.Created
	if got, ok := find(openStore(t, dir)); !ok || !cmp.Equal(want, got) {
		t.Errorf("after a restart: %v, %s", ok, cmp.Diff(want, got))
	}
	if err := s.Publish(p); err == nil || !strings.Contains(err.Error(), "has an image named team/golden image (v1) already") {
		t.Errorf("publish it again: %v", err)
	}
	other := p
	other.Owner = "099720109477"
	if err := s.Publish(other); err != nil {
		t.Errorf("the same name of another owner: %v", err)
	}
	all, err := s.Publications()
	if i := slices.IndexFunc(all, func(q image.Publication) bool { return q.Owner == other.Owner && q.Base == "mine" }); err != nil || i < 0 || all[i].OwnerAlias != "amazon" || all[i].RootDeviceName != "/dev/sda1" {
		t.Errorf("as Canonical's: %d of %+v, %v", i, all, err)
	}
	for name, test := range map[string]struct {
		change func(*image.Publication)
		err    string
	}{
		"owner": {func(p *image.Publication) { p.Owner = "self" }, "12 digits"},
		"name":  {func(p *image.Publication) { p.Name = "a*b" }, "3 to 128 letters"},
		"short": {func(p *image.Publication) { p.Name = "ab" }, "3 to 128 letters"},
		"base":  {func(p *image.Publication) { p.Base = "none" }, "base none: not found"},
	} {
		bad := p
		test.change(&bad)
		if err := s.Publish(bad); err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: error %v, want %q", name, err, test.err)
		}
	}
	if err := s.Unpublish(p.Owner, p.Name); err != nil {
		t.Fatal(err)
	}
	if _, ok := find(s); ok {
		t.Error("it is there after it was taken out")
	}
	if err := s.Unpublish(p.Owner, p.Name); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("take it out again: %v", err)
	}
}

// TestReleases checks that the images of each release belong to its publisher, and that the newest
// of each is not deprecated.
func TestReleases(t *testing.T) {
	all, err := openStore(t, t.TempDir()).Publications()
	if err != nil {
		t.Fatal(err)
	}
	newest := map[string]image.Publication{}
	for _, p := range all {
		if p.CreationDate.After(newest[p.Base].CreationDate) {
			newest[p.Base] = p
		}
	}
	for base, want := range map[string]image.Publication{
		"ubuntu-20.04": {Name: "ubuntu/images/hvm-ssd/ubuntu-focal-20.04-amd64-server-20250610", Owner: "099720109477", RootDeviceName: "/dev/sda1", VolumeType: "gp2", LoginUser: "ubuntu"},
		"ubuntu-22.04": {Name: "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20251212", Owner: "099720109477", RootDeviceName: "/dev/sda1", VolumeType: "gp2", BootMode: "uefi-preferred", LoginUser: "ubuntu"},
		"ubuntu-24.04": {Name: "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20250821", Owner: "099720109477", RootDeviceName: "/dev/sda1", VolumeType: "gp3", BootMode: "uefi-preferred", ImdsSupport: "v2.0", LoginUser: "ubuntu"},
		"debian-11":    {Name: "debian-11-amd64-20250814-2204", Owner: "136693071363", RootDeviceName: "/dev/xvda", VolumeType: "gp3", LoginUser: "admin"},
		"debian-13":    {Name: "debian-13-amd64-20251117-2299", Owner: "136693071363", RootDeviceName: "/dev/xvda", VolumeType: "gp3", BootMode: "uefi-preferred", LoginUser: "admin"},
	} {
		p := newest[base]
		got := image.Publication{
			Name: strings.Replace(p.Name, runtime.GOARCH, "amd64", 1), Owner: p.Owner, RootDeviceName: p.RootDeviceName, VolumeType: p.VolumeType,
			BootMode: p.BootMode, ImdsSupport: p.ImdsSupport, LoginUser: p.LoginUser,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", base, d)
		}
		if !p.Deprecated.IsZero() || p.OwnerAlias != "amazon" || p.Size != 8 {
			t.Errorf("%s: %+v", base, p)
		}
	}
	parameter := "/aws/service/canonical/ubuntu/server/jammy/stable/current/" + runtime.GOARCH + "/hvm/ebs-gp2/ami-id"
	if p := newest["ubuntu-22.04"]; !slices.Contains(p.Parameters, parameter) {
		t.Errorf("the newest is not at %s but %q", parameter, p.Parameters)
	}
}

// TestRecall checks that a name that an image of a release may have had on another day is found and
// published.
func TestRecall(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	name := "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-" + runtime.GOARCH + "-server-20241211"
	p, fresh, err := s.Recall(name)
	if err != nil || !fresh || p.Base != "ubuntu-22.04" || p.CreationDate.Format(time.DateOnly) != "2024-12-11" {
		t.Errorf("%+v, %v, %v", p, fresh, err)
	}
	if _, fresh, err := openStore(t, dir).Recall(name); err != nil || fresh {
		t.Errorf("again: %v, %v", fresh, err)
	}
	if _, fresh, err := s.Recall("debian-12-" + runtime.GOARCH + "-20251006-2257"); err != nil || fresh {
		t.Errorf("one of the catalog: %v, %v", fresh, err)
	}
	for _, name := range []string{
		strings.Replace(name, "20241211", "20241311", 1), strings.Replace(name, "20241211", "99991211", 1), strings.Replace(name, "20241211", "2024121", 1),
		strings.Replace(name, "jammy", "lunar", 1), name + "x", "web", "",
	} {
		if p, _, err := s.Recall(name); !errors.Is(err, image.ErrNotFound) {
			t.Errorf("%q: %+v, %v", name, p, err)
		}
	}
}

// TestRecallWithoutBase checks that images of a release that is made from a container image are
// found only once its base exists, including those that an older store has published.
func TestRecallWithoutBase(t *testing.T) {
	s := openStore(t, t.TempDir())
	name := "al2023-ami-2023.7.20250101.0-kernel-6.1-" + image.EC2Arch(runtime.GOARCH)
	if p, _, err := s.Recall(name); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("without a base: %+v, %v", p, err)
	}
	id, err := freeze(t.Context(), s, makeUpper(t, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SaveBase(image.Base{Name: "al2023", Layers: []image.LayerID{id}}); err != nil {
		t.Fatal(err)
	}
	p, fresh, err := s.Recall(name)
	if err != nil || !fresh || p.Base != "al2023" {
		t.Fatalf("with a base: %+v, %v, %v", p, fresh, err)
	}
	if err := s.CheckNew(p.Owner, name); err == nil {
		t.Error("it is not published")
	}
	if err := s.RemoveBase("al2023"); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckNew(p.Owner, name); err != nil {
		t.Errorf("the base is gone: %v", err)
	}
}

// TestAlias checks that the id of an AWS image can refer to a release.
func TestAlias(t *testing.T) {
	s := openStore(t, t.TempDir())
	for _, release := range []string{"debian-12", "ubuntu-22.04"} {
		if err := s.Alias("ami-0c4f7023847b90238", release); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.Publications()
	if err != nil {
		t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(p image.Publication) bool { return p.ID == "" })
	if len(all) != 1 || all[0].Base != "ubuntu-22.04" || all[0].LoginUser != "ubuntu" || all[0].RootDeviceName != "/dev/sda1" {
		t.Errorf("%+v", all)
	}
	if err := s.Alias("ami-x", "ubuntu-22.04"); err == nil || !strings.Contains(err.Error(), "must have the form ami-") {
		t.Errorf("no id: %v", err)
	}
	if err := s.Alias("ami-0c4f7023847b90238", "ubuntu-1"); err == nil || !strings.Contains(err.Error(), "choose one of ubuntu-20.04") {
		t.Errorf("no release: %v", err)
	}
}

// TestFillRelease checks that a base imported as a release has the release's login user and root
// device, and that it is replaced only if requested.
func TestFillRelease(t *testing.T) {
	s := openStore(t, t.TempDir())
	n := 0
	fill := func(o image.ImportOptions) (image.Base, error) {
		n++
		id, err := freeze(t.Context(), s, makeUpper(t, strings.Repeat("a", n)))
		return image.Base{Name: o.Name, User: o.User, Layers: []image.LayerID{id}}, err
	}
	b, err := s.FillRelease(t.Context(), "ubuntu-22.04", false, fill)
	if err != nil || b.Name != "ubuntu-22.04" || b.User != "ubuntu" || b.RootDevice != "/dev/sda1" {
		t.Fatalf("%+v, %v", b, err)
	}
	if got, err := s.Ensure(t.Context(), "ubuntu-22.04", image.EnsureOptions{}); err != nil || !slices.Equal(got.Layers, b.Layers) {
		t.Errorf("the base is %+v, %v", got, err)
	}
	if lacks, err := s.Lacks(b); err != nil || len(lacks) != 4 {
		t.Errorf("it lacks %q, %v", lacks, err)
	}
	if _, err := s.FillRelease(t.Context(), "ubuntu-22.04", false, fill); err == nil || !strings.Contains(err.Error(), "use -replace") || n != 1 {
		t.Errorf("again: %v after %d imports", err, n)
	}
	if _, err := s.Make(t.Context(), "ubuntu-22.04", false, image.EnsureOptions{}); err == nil || !strings.Contains(err.Error(), "use -replace") {
		t.Errorf("make it: %v", err)
	}
	again, err := s.FillRelease(t.Context(), "ubuntu-22.04", true, fill)
	if err != nil || slices.Equal(again.Layers, b.Layers) {
		t.Errorf("replaced: %+v, %v", again, err)
	}
}

func TestMirrors(t *testing.T) {
	for _, test := range []struct {
		release, list, given string
		want                 image.Mirrors
		err                  string
	}{
		{"", "", "", image.Mirrors{}, ""},
		{"", "http://m.example/debian,ubuntu=https://u.example/ubuntu", "", image.Mirrors{"debian": "http://m.example/debian", "ubuntu": "https://u.example/ubuntu"}, ""},
		{"ubuntu-22.04", "http://m.example/debian", "http://u.example/a?b=c", image.Mirrors{"debian": "http://m.example/debian", "ubuntu": "http://u.example/a?b=c"}, ""},
		{"debian-13", "", "debian=http://m.example/debian", image.Mirrors{"debian": "http://m.example/debian"}, ""},
		{"", "fedora=http://f.example", "", nil, `mirror of "fedora": only debian and ubuntu`},
		{"", "ubuntu=/srv/ubuntu", "", nil, "must begin with http"},
	} {
		got, err := image.MirrorsFor(test.release, test.list, test.given)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%+v: error %v", test, err)
			}
			continue
		}
		if d := cmp.Diff(test.want, got); err != nil || d != "" {
			t.Errorf("%+v: %s %v", test, d, err)
		}
	}
}

func TestBases(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	id, err := freeze(t.Context(), s, makeUpper(t, "a"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []image.Base{
		{Name: "../x", Layers: []image.LayerID{id}},
		{Name: "none"},
		{Name: "missing", Layers: []image.LayerID{"layer-0000000000000000"}},
	} {
		if err := s.SaveBase(b); err == nil {
			t.Errorf("base %+v was saved", b)
		}
	}
	for _, name := range []string{"b", "a"} {
		if err := s.SaveBase(image.Base{Name: name, Layers: []image.LayerID{id}}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := openStore(t, dir).Bases()
	if err != nil || len(all) != 2 || all[0].Name != "a" || all[1].Name != "b" {
		t.Errorf("bases %v, %v", all, err)
	}
	if _, err := s.Ensure(t.Context(), "c", image.EnsureOptions{}); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("a base that nobody knows how to make: %v", err)
	}
	if b, err := s.Ensure(t.Context(), "a", image.EnsureOptions{}); err != nil || b.Name != "a" {
		t.Errorf("a base that exists: %v, %v", b, err)
	}
}

// cloudMirror serves empty packages with all the names that a Debian base needs.
func cloudMirror(t *testing.T) *debiantest.Mirror {
	t.Helper()
	m := debiantest.NewMirror(t)
	m.Arch = runtime.GOARCH
	packages := []debiantest.Package{{Name: "dpkg", Version: "1", Fields: "Essential: yes\n"}}
	for _, name := range image.CloudPackages() {
		packages = append(packages, debiantest.Package{Name: name, Version: "1"})
	}
	m.Publish(t, debiantest.Release{Suite: "bookworm", Date: time.Now().Add(-time.Hour)}, packages...)
	return m
}

// TestEnsure requests a base concurrently through several stores that do not know of each other,
// like several processes.
func TestEnsure(t *testing.T) {
	mirror := cloudMirror(t)
	dir := t.TempDir()
	var made atomic.Int32
	var spec machine.Spec
	driver := &machinetest.Driver{Run: func(s machine.Spec) error {
		made.Add(1)
		spec = s
		return os.WriteFile(filepath.Join(s.Dir, "upper", "configured"), nil, 0o644)
	}}
	var wg sync.WaitGroup
	bases := make([]image.Base, 6)
	for i := range bases {
		wg.Go(func() {
			s, err := image.Open(dir, driver)
			if err == nil {
				bases[i], err = s.Ensure(t.Context(), "debian-12", image.EnsureOptions{Mirrors: image.Mirrors{"debian": mirror.URL}, Keyring: mirror.Keyring})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if n := made.Load(); n != 1 {
		t.Errorf("the base was made %d times", n)
	}
	for _, b := range bases {
		if !slices.Equal(b.Layers, bases[0].Layers) {
			t.Errorf("got %v and %v", b.Layers, bases[0].Layers)
		}
	}
	s := openStore(t, dir)
	got := "\n" + layerFiles(t, s, bases[0].Layers[0]) + "\n"
	for _, want := range []string{"configured", "var/lib/dpkg/info/openssh-server.list"} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("the base has no %s", want)
		}
	}
	if b := bases[0]; b.User != "admin" || !strings.HasPrefix(b.Source, "Debian 12.0 bookworm, deb "+mirror.URL) || !slices.Contains(b.Packages, "cloud-init=1") {
		t.Errorf("base %+v", b)
	}
	if len(spec.Command) == 0 || spec.Network.Policy == nil || spec.Network.Policy.Egress("tcp", spec.Network.Private, 80) {
		t.Errorf("the machine that configures: %+v", spec)
	}
	if left := listing(t, filepath.Join(dir, "tmp")); left != "" {
		t.Errorf("left in tmp: %s", left)
	}
}

// TestBootstrapFails makes each stage fail: no base and no layer must remain.
func TestBootstrapFails(t *testing.T) {
	canceled, cancel := context.WithCancelCause(context.Background())
	for name, test := range map[string]struct {
		driver  *machinetest.Driver
		ctx     context.Context
		options image.EnsureOptions
		broken  func(*debiantest.Mirror)
		err     string
	}{
		"mirror": {broken: func(m *debiantest.Mirror) {
			m.Fail(func(string, int) int { return http.StatusForbidden })
		}, err: "the mirror answered 403"},
		"package is no package": {broken: func(m *debiantest.Mirror) {
			m.Publish(t, debiantest.Release{Suite: "bookworm-updates", Date: time.Now()}, debiantest.Package{Name: "curl", Version: "2", Control: map[string]string{"triggers": "interest\n"}})
		}, err: "unpack package curl: triggers:"},
		"start": {driver: &machinetest.Driver{StartError: func(machine.Spec) error { return errors.New("no user namespaces") }}, err: "no user namespaces"},
		"configure": {driver: &machinetest.Driver{Run: func(s machine.Spec) error {
			os.WriteFile(s.Console, []byte("Setting up x\ndpkg: error processing package x\n"), 0o644)
			return errors.New("exit status 1")
		}}, err: "exit status 1; its console ends with:\nSetting up x\ndpkg: error processing package x"},
		"canceled": {ctx: canceled, driver: &machinetest.Driver{Run: func(machine.Spec) error {
			cancel(errors.New("the user pressed Ctrl-C"))
			<-time.After(time.Hour)
			return nil
		}}, err: "the user pressed Ctrl-C"},
		"keyring": {options: image.EnsureOptions{Keyring: "/nonexistent/keyring.gpg"}, err: "read the keyring: open /nonexistent/keyring.gpg"},
	} {
		t.Run(name, func(t *testing.T) {
			mirror := cloudMirror(t)
			if test.broken != nil {
				test.broken(mirror)
			}
			if test.driver == nil {
				test.driver = &machinetest.Driver{}
			}
			if test.ctx == nil {
				test.ctx = t.Context()
			}
			o := test.options
			o.Mirrors = image.Mirrors{"debian": mirror.URL}
			if o.Keyring == "" {
				o.Keyring = mirror.Keyring
			}
			dir := t.TempDir()
			s, err := image.Open(dir, test.driver)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Ensure(test.ctx, "debian-12", o)
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			for _, sub := range []string{"layers", "tmp", "publications"} {
				if left := listing(t, filepath.Join(dir, sub)); left != "" {
					t.Errorf("left in %s: %s", sub, left)
				}
			}
			if _, err := s.Base("debian-12"); !errors.Is(err, image.ErrNotFound) {
				t.Errorf("there is a base: %v", err)
			}
		})
	}
}

// Images for other processors are only offered where the host can run them, and their bases then
// name the processor.
func TestOtherProcessors(t *testing.T) {
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	for _, runs := range []bool{false, true} {
		driver := &machinetest.Driver{}
		if !runs {
			driver.Lacks = []string{other}
		}
		s, err := image.Open(t.TempDir(), driver)
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.Publications()
		if err != nil {
			t.Fatal(err)
		}
		there := slices.ContainsFunc(all, func(p image.Publication) bool {
			return p.Name == "debian-12-"+other+"-20251006-2257" && p.Base == "debian-12-"+other && p.Architecture == image.EC2Arch(other) &&
				slices.Contains(p.Parameters, "/aws/service/debian/release/12/latest/"+other)
		})
		if there != runs {
			t.Errorf("host runs them: %v, there: %v", runs, there)
		}
		text, err := s.Explain("", []string{"amazon"}, map[string][]string{"name": {"debian-12-" + other + "-2019*"}})
		if err != nil || strings.Contains(text, "no emulator for "+other) == runs {
			t.Errorf("host runs them: %v: %s, %v", runs, text, err)
		}
		_, err = s.Make(t.Context(), "debian-12-"+other, false, image.EnsureOptions{Mirrors: image.Mirrors{"debian": "http://127.0.0.1:1/"}})
		if err == nil || strings.Contains(err.Error(), "no emulator for") == runs {
			t.Errorf("host runs them: %v: %v", runs, err)
		}
	}
	s := openStore(t, t.TempDir())
	b, err := s.FillRelease(t.Context(), "debian-12-"+other, false, func(o image.ImportOptions) (image.Base, error) {
		return s.ImportTar(t.Context(), bytes.NewReader(archive(t, "bin/sh")), o)
	})
	if err != nil || b.Arch != other {
		t.Errorf("%+v, %v", b, err)
	}
}

// A base made from existing layers uses them unchanged.
func TestImportLayers(t *testing.T) {
	s := openStore(t, t.TempDir())
	id, err := s.Import(t.Context(), bytes.NewReader(archive(t, "etc/a")))
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.ImportLayers(t.Context(), image.ImportOptions{Name: "import-1-x", Source: "ami-1"}, func() (image.Base, error) {
		return image.Base{Layers: []image.LayerID{id}, User: "ops", Size: 20}, nil
	})
	if err != nil || b.User != "ops" || b.Arch != runtime.GOARCH || b.RootDevice != "/dev/xvda" || b.Source != "ami-1" {
		t.Fatalf("%+v, %v", b, err)
	}
	if err := s.Publish(image.Publication{Owner: "111122223333", Name: "our-base", Base: b.Name}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Publications()
	if err != nil || !slices.ContainsFunc(all, func(p image.Publication) bool { return p.Name == "our-base" && p.Size == 20 }) {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := s.ImportLayers(t.Context(), image.ImportOptions{Name: "x"}, func() (image.Base, error) {
		return image.Base{Layers: []image.LayerID{"layer-0123456789abcdef"}}, nil
	}); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("layers that are not there: %v", err)
	}
}
