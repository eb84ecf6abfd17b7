package machinetest_test

import (
	"errors"
	"path/filepath"
	"testing"

	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
)

func TestFake(t *testing.T) {
	machinetest.TestDriver(t, func(t *testing.T) machinetest.Fixture {
		return machinetest.Fixture{Driver: &machinetest.Driver{}, Dir: t.TempDir(), Layers: []string{t.TempDir()}}
	})
}

func TestFakeEnds(t *testing.T) {
	d := &machinetest.Driver{Run: func(machine.Spec) error { return errors.New("exit status 3") }}
	dir := t.TempDir()
	m, err := d.Start(t.Context(), machine.Spec{ID: "i-1", Dir: filepath.Join(dir, "i-1"), Console: filepath.Join(dir, "console")})
	if err != nil {
		t.Fatal(err)
	}
	d.Machine("i-1").End(machine.Exit{Reason: machine.Reboot})
	<-m.Done()
	if m.Exit().Reason != machine.Reboot || d.Machine("i-1") != nil {
		t.Errorf("exit is %+v", m.Exit())
	}
	m, err = d.Start(t.Context(), machine.Spec{ID: "i-1", Dir: filepath.Join(dir, "i-1"), Command: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	<-m.Done()
	if e := m.Exit(); e.Reason != machine.PowerOff || e.Err == nil {
		t.Errorf("exit is %+v", e)
	}
	if len(d.Specs()) != 2 {
		t.Errorf("%d specs", len(d.Specs()))
	}
	d.StartError = func(machine.Spec) error { return errors.New("no capacity") }
	if _, err := d.Start(t.Context(), machine.Spec{}); err == nil {
		t.Error("started")
	}
}
