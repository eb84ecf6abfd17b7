package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"bake/cloud/image/debian"
	"bake/cloud/network"
)

// Progress is a report of the progress of a bootstrap or an import.
type Progress = debian.Progress

// CloudPackages returns the packages that a base has in addition to its distribution's required
// packages. They are those of the distribution's EC2 images that scripts rely on, without the
// kernel, the boot loader and the network setup, which a machine here does not need.
func CloudPackages() []string {
	return []string{
		"apt", "init", "systemd-sysv", "dbus", "libpam-systemd",
		"openssh-server", "sudo", "cloud-init", "locales", "cron",
		"ca-certificates", "curl", "wget", "gpg", "lsb-release", "xz-utils",
		"iproute2", "iputils-ping", "netbase", "procps", "less", "vim-tiny",
		"python3-minimal",
	}
}

// furtherPackages returns packages that only some releases have, or that a base can do without.
func furtherPackages(r release) []string {
	further := []string{"usr-is-merged"}
	switch {
	case r.Owner == canonical:
		further = append(further, "ubuntu-keyring", "udev", "tzdata", "python3", "gnupg", "file", "bzip2", "git", "rsync",
			"software-properties-common", "ufw", "netcat-openbsd", "bash-completion")
	case r.Suite == "bullseye":
		further = append(further, "udev") // called by its cloud-init
	}
	return further
}

const rootDevice = "/dev/xvda" // if nothing else is known

// bootstrap makes the base of a release from the packages of a mirror and saves it. If it fails or
// the process dies, no base exists, and only downloads in the cache remain.
func (s *Store) bootstrap(ctx context.Context, r release, o EnsureOptions) (Base, error) {
	report := o.Progress
	if report == nil {
		report = func(Progress) {}
	}
	if err := s.driver.Runs(r.Arch); err != nil {
		return Base{}, fmt.Errorf("make base %s: %w", r.ID, err)
	}
	if r.Arch != runtime.GOARCH {
		report(Progress{Note: "The base " + r.ID + " is made in emulation, which takes many minutes."})
	}
	system, err := debian.Prepare(ctx, debian.Options{
		Suite:    r.Suite,
		Arch:     r.Arch, // Debian and Go use the same names for amd64 and arm64
		Include:  CloudPackages(),
		Optional: furtherPackages(r),
		Mirror:   o.Mirrors[debian.Distribution(r.Suite)],
		Keyring:  o.Keyring,
		Cache:    s.path("cache"),
		User:     r.User,
		Progress: report,
		Host:     os.DirFS("/"),
		Now:      time.Now,
	})
	if err != nil {
		return Base{}, s.explain("make base "+r.ID, err)
	}
	base := Base{
		Name:       r.ID,
		Arch:       r.Arch,
		User:       r.User,
		RootDevice: publisherOf(r.Owner).RootDevice,
		Source:     strings.Join(strings.Fields(system.Name+" "+system.Version+" "+r.Suite+", "+system.Sources[0]), " "),
		Mirrors:    system.Mirrors,
		Created:    time.Now().UTC(),
	}
	for _, p := range system.Packages {
		base.Packages = append(base.Packages, p.Name+"="+p.Version)
	}
	err = s.work(ctx, func(dir string) error {
		root, err := s.buildDebian(ctx, system, r.Arch, dir, report)
		if err != nil {
			return err
		}
		if err := syncFileSystem(s.dir); err != nil {
			return err
		}
		id, err := s.adopt(root, layerRecord{})
		if err != nil {
			return err
		}
		base.Layers = []LayerID{id}
		return s.SaveBase(base)
	})
	if err != nil {
		return Base{}, s.explain("make base "+r.ID, err)
	}
	return base, nil
}

// buildDebian makes the single layer of a base below dir and returns its path.
//
// The packages are unpacked directly into the upper directory of the machine that configures them,
// over an empty lower layer. If they were in a lower layer, dpkg would have to copy up most of the
// files that it touches, and overlayfs waits for the disk after every copy, which doubles the time.
func (s *Store) buildDebian(ctx context.Context, system *debian.System, arch, dir string, report func(Progress)) (root string, err error) {
	spec := s.oneOff(dir, strings.ToLower(system.Name), arch)
	spec.Layers, spec.Command = []string{filepath.Join(dir, "empty")}, system.Command()
	root = filepath.Join(spec.Dir, "upper")
	if err := s.driver.Private(spec.Dir); err != nil {
		return "", err
	}
	if err := s.driver.Unpack(ctx, bytes.NewReader(make([]byte, 2*tarBlock)), spec.Layers[0]); err != nil {
		return "", err
	}
	if err := s.unpackDebian(ctx, system, root); err != nil {
		return "", err
	}

	report(Progress{Phase: "configure packages"})
	return root, s.runOnce(ctx, spec, "configure packages")
}

// unpackDebian writes the unconfigured system into root: the first stage.
func (s *Store) unpackDebian(ctx context.Context, system *debian.System, root string) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := system.WriteTar(ctx, w)
		w.CloseWithError(err)
		written <- err
	}()
	err := s.driver.Unpack(ctx, r, root)
	r.CloseWithError(errors.Join(errors.New("nobody reads on"), err))
	// If both have an error, the writer's is the cause, unless it only reports that the reader has
	// stopped.
	if werr := <-written; werr != nil && (err == nil || !errors.Is(werr, err)) {
		err = werr
	}
	return err
}

// closed is the network policy of a machine without network access.
type closed struct{}

func (closed) Ingress(network.Proto, netip.Addr, uint16) bool { return false }
func (closed) Egress(network.Proto, netip.Addr, uint16) bool  { return false }
func (closed) Open() []network.PortRange                      { return nil }

// tail returns the last lines of a console, for an error message.
func tail(console string) string {
	b, err := os.ReadFile(console)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// Mirrors are archive URLs, keyed by distribution: debian, ubuntu. A distribution that is missing
// uses the archive in the host's apt sources or its public archive.
type Mirrors map[string]string

// ParseMirrors parses a comma-separated list of [DISTRIBUTION=]URL. A URL without a distribution is
// a Debian archive.
func ParseMirrors(text string) (Mirrors, error) {
	m := Mirrors{}
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		name, url, named := strings.Cut(part, "=")
		if !named || strings.Contains(name, ":") {
			name, url = "debian", part
		}
		if err := debian.CheckMirror(name, url); err != nil {
			return nil, err
		}
		m[name] = url
	}
	return m, nil
}

// EnsureOptions are the settings for making a base.
type EnsureOptions struct {
	Mirrors Mirrors
	// Keyring is a file with the keys that may sign the mirror's indexes; empty means the keys of
	// the distribution's archive.
	Keyring string

	Progress func(Progress) // may be nil; calls do not overlap
}

// MirrorsFor returns the mirrors in list, in the format of [ParseMirrors], overridden by given.
// given is either another such list or the URL of the archive of the release's distribution.
func MirrorsFor(releaseID, list, given string) (Mirrors, error) {
	mirrors, err := ParseMirrors(list)
	if err != nil || given == "" {
		return mirrors, err
	}
	r, known := findRelease(releaseID)
	if name, _, named := strings.Cut(given, "="); known && (!named || strings.Contains(name, ":")) {
		given = debian.Distribution(r.Suite) + "=" + given
	}
	more, err := ParseMirrors(given)
	maps.Copy(mirrors, more)
	return mirrors, err
}

// Ensure returns a base. If it is the base of a release and does not exist yet, Ensure makes it.
// Concurrent callers, also in other processes, wait for the one that makes it.
func (s *Store) Ensure(ctx context.Context, name string, o EnsureOptions) (Base, error) {
	b, err := s.Base(name)
	if err == nil {
		return b, s.complete(b)
	}
	if _, known := findRelease(name); !errors.Is(err, ErrNotFound) || !known {
		return b, err
	}
	return s.making(ctx, name, o, false)
}

// complete returns an error if a layer of the base has been deleted.
func (s *Store) complete(b Base) error {
	for _, id := range b.Layers {
		if s.Has(id) {
			continue
		}
		err := fmt.Errorf("base %s is incomplete: %s has been deleted, or its record is damaged", b.Name, s.recordPath(id))
		if _, known := findRelease(b.Name); known {
			return fmt.Errorf("%w; build it again: bake cloud base %s -replace", err, b.Name)
		}
		return fmt.Errorf("%w; import it again: bake cloud import", err)
	}
	return nil
}

// Make makes the base of a release. If it exists, Make fails unless replace is set.
func (s *Store) Make(ctx context.Context, id string, replace bool, o EnsureOptions) (Base, error) {
	if _, err := s.release(id); err != nil {
		return Base{}, err
	}
	if _, err := s.Base(id); !errors.Is(err, ErrNotFound) && !replace {
		return Base{}, errors.Join(errThere(id), err)
	}
	return s.making(ctx, id, o, replace)
}

func errThere(id string) error {
	return fmt.Errorf("the base of %s already exists: use -replace to make it again", id)
}

// making makes the base of a release. If replace is not set and another process has just made it,
// making returns that one.
func (s *Store) making(ctx context.Context, id string, o EnsureOptions, replace bool) (Base, error) {
	r, err := s.release(id)
	if err != nil {
		return Base{}, err
	}
	unlock, err := s.lockBase(ctx, id, o.Progress)
	if err != nil {
		return Base{}, err
	}
	defer unlock()
	if r.Suite == "" {
		return Base{}, fmt.Errorf("%s cannot be made from a mirror: make it from a container image with 'bake cloud base %s -from IMAGE'", r.Title, id)
	}
	if b, err := s.Base(id); !replace && !errors.Is(err, ErrNotFound) {
		return b, err
	}
	return s.bootstrap(ctx, r, o)
}

// lockBase waits until no other process is making the base.
func (s *Store) lockBase(ctx context.Context, id string, report func(Progress)) (unlock func(), err error) {
	file := s.path("bases", id+".lock")
	unlock, err = tryLock(file, syscall.LOCK_EX)
	if errors.Is(err, errLocked) {
		if report != nil {
			report(Progress{Note: "waiting for another process that is making base " + id})
		}
		unlock, err = lock(ctx, file, syscall.LOCK_EX)
	}
	return unlock, s.explain("make base "+id, err)
}
