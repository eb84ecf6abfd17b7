package image_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bake/cloud/image"
	"bake/cloud/image/debian/debiantest"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
)

// TestInstall checks that the result of the second stage becomes a layer on top of the base, and
// that the base stays unchanged if the second stage fails.
func TestInstall(t *testing.T) {
	var fail error
	var spec machine.Spec
	driver := &machinetest.Driver{Run: func(s machine.Spec) error {
		spec = s
		return errors.Join(fail, os.WriteFile(filepath.Join(s.Dir, "upper", "installed"), nil, 0o644), os.WriteFile(s.Console, []byte("No match for argument: systemd\n"), 0o644))
	}}
	dir := t.TempDir()
	s, err := image.Open(dir, driver)
	if err != nil {
		t.Fatal(err)
	}
	id, err := freeze(t.Context(), s, makeUpper(t, "a"))
	if err != nil {
		t.Fatal(err)
	}
	bare := image.Base{Name: "al2023", User: "ec2-user", Layers: []image.LayerID{id}}
	if err := s.SaveBase(bare); err != nil {
		t.Fatal(err)
	}
	fail = errors.New("exit status 1")
	_, err = s.Install(t.Context(), bare, nil, func(image.Progress) {})
	if err == nil || !strings.Contains(err.Error(), "install packages in a machine: exit status 1; its console ends with:\nNo match for argument: systemd") {
		t.Errorf("error %v", err)
	}
	if b, err := s.Base("al2023"); err != nil || !slices.Equal(b.Layers, bare.Layers) {
		t.Errorf("after it failed: %+v, %v", b, err)
	}
	fail = nil
	b, err := s.Install(t.Context(), bare, nil, func(image.Progress) {})
	if err != nil || len(b.Layers) != 2 || b.Layers[1] != id {
		t.Fatalf("%+v, %v", b, err)
	}
	if got := layerFiles(t, s, b.Layers[0]); got != "installed" {
		t.Errorf("the layer on top has %q", got)
	}
	if spec.Command[len(spec.Command)-1] != "ec2-user" || !spec.Network.Policy.Egress("tcp", spec.Network.Private, 443) || spec.Network.Policy.Ingress("tcp", spec.Network.Private, 22) {
		t.Errorf("the machine: %+v", spec)
	}
	all, err := s.Publications()
	if err != nil || !slices.ContainsFunc(all, func(p image.Publication) bool {
		return p.Base == "al2023" && strings.HasPrefix(p.Name, "al2023-ami-2023.9.") && p.LoginUser == "ec2-user"
	}) {
		t.Errorf("publications of what is there: %v", err)
	}
	if left := listing(t, filepath.Join(dir, "tmp")); left != "" {
		t.Errorf("left in tmp: %s", left)
	}
}

// stubs replace the package manager that the second stage calls: they record their arguments, and
// remove the base's own login user, whose id the new one gets.
const stubs = `#!/bin/sh
set -e
[ "$(basename "$0")" = rpm ] && exit 1
case "$*" in
*"install systemd openssh-server"*) userdel admin; rm /etc/sudoers.d/90-cloud-init-users ;;
esac
echo "$*" >>/var/log/dnf.log
`

// checkSecondStage runs the second stage on a machine with a stub package manager, and checks the
// result.
func checkSecondStage(t *testing.T, store *image.Store, driver machine.Driver, base image.Base) {
	stub, err := store.Import(t.Context(), bytes.NewReader(debiantest.Tar(t, []tar.Header{
		{Typeflag: tar.TypeReg, Name: "usr/local/bin/dnf", Mode: 0o755}, {Typeflag: tar.TypeReg, Name: "usr/local/bin/rpm", Mode: 0o755},
	}, func(string) string { return stubs })))
	if err != nil {
		t.Fatal(err)
	}
	base = image.Base{Name: "second-stage", User: "ec2-user", Layers: append([]image.LayerID{stub}, base.Layers...)}
	base, err = store.Install(t.Context(), base, nil, func(image.Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	layers, err := store.Paths(base.Layers)
	if err != nil {
		t.Fatal(err)
	}
	const script = `set -eu
[ "$(id -un 1000)" = ec2-user ] && id -Gn ec2-user | grep -qw adm
grep -q 'install systemd openssh-server sudo cloud-init$' /var/log/dnf.log
tail -1 /var/log/dnf.log | grep -qx 'clean all'
grep -qx '    name: ec2-user' /etc/cloud/cloud.cfg.d/90_bake.cfg
[ "$(stat -c %a /etc/sudoers.d/90-cloud-init-users)" = 440 ]
[ ! -s /etc/machine-id ]
[ "$(systemctl get-default)" = multi-user.target ]
`
	console := filepath.Join(t.TempDir(), "console")
	m, err := driver.Start(t.Context(), machine.Spec{
		ID: "second", Dir: machineDir(t, driver), Layers: layers, Hostname: "check", Console: console,
		Command: []string{"/bin/sh", "-xc", script}, Network: testNetwork(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if exit := m.Exit(); exit.Err != nil {
		b, _ := os.ReadFile(console)
		t.Errorf("%v:\n%s", exit.Err, b)
	}
}
