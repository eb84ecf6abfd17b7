package image

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"bake/cloud/machine"
	"bake/cloud/network"
)

// secondStage has one argument: the login user.
//
//go:embed secondstage.sh
var secondStage string

// Install adds what a cloud machine needs to a base that was made from a container image: it boots
// a machine from the base, with network access as reach allows, and installs the missing packages
// with the image's own package manager. The result becomes a layer on top of the base, which is
// saved.
func (s *Store) Install(ctx context.Context, b Base, reach *network.Reach, report func(Progress)) (Base, error) {
	layers, err := s.Paths(b.Layers)
	if err != nil {
		return Base{}, err
	}
	report(Progress{Phase: "install packages"})
	err = s.work(ctx, func(dir string) error {
		spec := s.oneOff(dir, b.Name, b.Arch)
		spec.Layers, spec.Network.Policy, spec.Network.Reach = layers, outward{}, reach
		spec.Command = []string{"/bin/sh", "-c", secondStage, "second-stage", b.User}
		if err := s.driver.Private(spec.Dir); err != nil {
			return err
		}
		if err := s.runOnce(ctx, spec, "install packages"); err != nil {
			return err
		}
		if err := syncFileSystem(s.dir); err != nil {
			return err
		}
		id, err := s.adopt(filepath.Join(spec.Dir, "upper"), layerRecord{})
		if err != nil {
			return err
		}
		b.Layers = append([]LayerID{id}, b.Layers...)
		return s.SaveBase(b)
	})
	return b, s.explain("install what a machine needs in "+b.Name, err)
}

// oneOff returns the spec of a machine in dir, for an architecture, that runs one command and ends.
func (s *Store) oneOff(dir, hostname, arch string) machine.Spec {
	return machine.Spec{
		ID:       filepath.Base(dir),
		Arch:     arch,
		Dir:      filepath.Join(dir, "machine"),
		Hostname: hostname,
		Console:  filepath.Join(dir, "console.log"),
		Network: network.Config{
			Private: netip.MustParseAddr("192.0.2.10"),
			Subnet:  netip.MustParsePrefix("192.0.2.0/24"),
			Policy:  closed{},
		},
	}
}

// runOnce runs a machine until its command ends.
func (s *Store) runOnce(ctx context.Context, spec machine.Spec, doing string) error {
	m, err := s.driver.Start(ctx, spec)
	if err != nil {
		return err
	}
	select {
	case <-m.Done():
	case <-ctx.Done():
		err := m.Kill()
		<-m.Done()
		return errors.Join(context.Cause(ctx), err)
	}
	exit := m.Exit()
	if exit.Err == nil && exit.Reason != machine.PowerOff {
		exit.Err = fmt.Errorf("it ended early: %s", exit.Reason)
	}
	if exit.Err != nil {
		return fmt.Errorf("%s in a machine: %w; its console ends with:\n%s", doing, exit.Err, tail(spec.Console))
	}
	return nil
}

// outward is the network policy of a machine that may only open connections, to download packages.
type outward struct{}

func (outward) Ingress(network.Proto, netip.Addr, uint16) bool { return false }
func (outward) Egress(network.Proto, netip.Addr, uint16) bool  { return true }
func (outward) Open() []network.PortRange                      { return nil }
