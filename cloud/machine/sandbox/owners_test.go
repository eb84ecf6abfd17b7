package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bake/cloud/machine"
)

// TestClaim: what a directory's machines have left belongs to ids that later machines must have.
func TestClaim(t *testing.T) {
	uid, gid := os.Getuid(), os.Getgid()
	ids := func(mode Mode, own, first, count int) identity {
		id := identity{mode: mode}
		for _, to := range []struct {
			maps *[]syscall.SysProcIDMap
			own  int
		}{{&id.uids, own}, {&id.gids, own - uid + gid}} {
			*to.maps = []syscall.SysProcIDMap{{HostID: to.own, Size: 1}}
			if count > 0 {
				*to.maps = append(*to.maps, syscall.SysProcIDMap{ContainerID: 1, HostID: first, Size: count})
			}
		}
		return id
	}
	subid, single := ids(ModeSubid, uid, 100000, 65536), ids(ModeSingle, uid, 0, 0)
	whole := []syscall.SysProcIDMap{{HostID: rangeBase, Size: rangeSize}}
	for name, tt := range map[string]struct {
		made, now identity
		empty     bool
		want      []string // of the error; none: there is none
	}{
		"the same":        {made: subid, now: subid},
		"more ids":        {made: ids(ModeSubid, uid, 100000, 1000), now: subid},
		"nothing there":   {made: subid, now: single, empty: true},
		"no range":        {made: subid, now: single, want: []string{"100000-165535, and machines that are started now would have ", "newuidmap and newgidmap", ":100000:65536 in /etc/subuid", ":100000:65536 in /etc/subgid"}},
		"another range":   {made: subid, now: ids(ModeSubid, uid, 200000, 65536), want: []string{"100000-165535", "200000-265535", ":100000:65536 in /etc/subuid"}},
		"fewer ids":       {made: subid, now: ids(ModeSubid, uid, 100000, 1000), want: []string{"100000-165535", "100000-100999"}},
		"a range now":     {made: single, now: subid, want: []string{"100000-165535"}},
		"another user":    {made: ids(ModeSubid, uid+7, 100000, 65536), now: subid, want: []string{"run bake as the user with the id "}},
		"made by root":    {made: identity{ModeRange, whole, whole}, now: single, want: []string{"the user and group ids 1048576-1114111", "run bake as root"}},
		"root afterwards": {made: single, now: identity{ModeRange, whole, whole}, want: []string{"1048576-1114111"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cloud")
			claim := func(ids identity, holdsFiles bool) error {
				return (&Driver{ids: ids, options: Options{Dir: dir}}).Claim(holdsFiles)
			}
			if err := claim(tt.made, false); err != nil {
				t.Fatal(err)
			}
			err := claim(tt.now, !tt.empty)
			if tt.want == nil {
				if err != nil {
					t.Errorf("got %v, want no error", err)
				}
				return
			}
			other, ok := errors.AsType[*OwnersError](err)
			if !ok {
				t.Fatalf("got %v, want an OwnersError", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(other.Error()+": "+other.Remedy, want) {
					t.Errorf("got %v: %s, want %s", other, other.Remedy, want)
				}
			}
			if err := claim(tt.made, true); err != nil {
				t.Errorf("with the first ids again: %v", err)
			}
		})
	}
}

// TestClaimOfAnother: root does not take over the directory of another user, even an empty one.
func TestClaimOfAnother(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can open another user's directory")
	}
	const user = 4242
	one := []syscall.SysProcIDMap{{HostID: user, Size: 1}}
	dir := t.TempDir()
	made := &Driver{ids: identity{ModeSingle, one, one}, options: Options{Dir: dir}}
	if err := errors.Join(made.Claim(false), os.Chown(filepath.Join(dir, machine.OwnersFile), user, user)); err != nil {
		t.Fatal(err)
	}
	ids, err := rangeIdentity()
	if err != nil {
		t.Fatal(err)
	}
	err = (&Driver{ids: ids, options: Options{Dir: dir}}).Claim(false)
	if other, ok := errors.AsType[*OwnersError](err); !ok || other.Remedy != "run bake as the user with the id 4242, as when they were made" {
		t.Errorf("got %v, want an OwnersError", err)
	}
}

// TestClaimDamaged: a record that says nothing is not taken for one.
func TestClaimDamaged(t *testing.T) {
	for _, text := range []string{"", "{}", `{"mode":"subid","uids":[{}],"gids":[{}]}`} {
		dir := t.TempDir()
		name := filepath.Join(dir, machine.OwnersFile)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d := &Driver{ids: singleIdentity(), options: Options{Dir: dir}}
		if err := d.Claim(true); err == nil || !strings.Contains(err.Error(), name+" is damaged") {
			t.Errorf("%q: got %v, want that it is damaged", text, err)
		}
		if err := d.Claim(false); err != nil {
			t.Errorf("%q, without files: %v", text, err)
		}
	}
}
