package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"bake/cloud/durable"
	"bake/cloud/machine"
)

// owners is the content of [machine.OwnersFile].
type owners struct {
	Mode Mode      `json:"mode"`
	UIDs []idRange `json:"uids"`
	GIDs []idRange `json:"gids"`
}

// idRange maps Count ids of a machine to those of the host.
type idRange struct {
	Machine int `json:"machine"` // the first one
	Host    int `json:"host"`
	Count   int `json:"count"`
}

// OwnersError is the error of [Driver.Claim] if the files in a directory belong to other ids than
// those that the driver's machines have.
type OwnersError struct {
	Dir    string
	Detail string // what the files belong to, and what the machines have
	Remedy string // how the machines get the ids of the files

	// Mode is the mode of a driver, for the same user, whose machines have the ids of the files;
	// it is empty if there is none.
	Mode Mode
}

func (e *OwnersError) Error() string {
	return fmt.Sprintf("the files of the machines in %s %s", e.Dir, e.Detail)
}

// Claim records to which ids the files of the driver's machines belong, in [machine.OwnersFile] of the
// driver's directory, unless [Driver.CheckOwners] returns an error. Whoever keeps such files there
// calls it first.
func (d *Driver) Claim(holdsFiles bool) error {
	recorded, err := d.CheckOwners(holdsFiles)
	if recorded || err != nil {
		return err
	}
	text, err := json.Marshal(d.ids.owners())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.options.Dir, 0o700); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(d.options.Dir, machine.OwnersFile), append(text, '\n'), 0o600)
}

// CheckOwners reports whether it is recorded that the files of machines in the driver's directory
// belong to the ids of the driver's machines. The error is an [OwnersError] if other ids are recorded
// and the directory holds files of machines, or is another user's.
func (d *Driver) CheckOwners(holdsFiles bool) (recorded bool, err error) {
	now := d.ids.owners()
	name := filepath.Join(d.options.Dir, machine.OwnersFile)
	text, err := os.ReadFile(name)
	var made owners
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return false, nil
	case err != nil:
		return false, err
	case !holdsFiles && isOurs(name):
		return false, nil
	case json.Unmarshal(text, &made) != nil || !made.complete():
		return false, durable.Damaged(name, errors.New("it does not say whose the files of machines are"))
	case made.Mode != now.Mode || !within(made.UIDs, now.UIDs) || !within(made.GIDs, now.GIDs):
		e := &OwnersError{
			Dir:    d.options.Dir,
			Detail: fmt.Sprintf("belong to %s, and machines that are started now would have %s%s", made, now, d.ids.whyNot()),
			Remedy: made.remedy(),
		}
		if e.Remedy == "" {
			e.Mode = made.Mode
		}
		return false, e
	}
	return true, nil
}

// isOurs reports whether a file belongs to the user of this process. Root may open those of others.
func isOurs(name string) bool {
	info, err := os.Lstat(name)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// complete reports whether all is there that a driver records.
func (o owners) complete() bool {
	want := 1
	if o.Mode == ModeSubid {
		want = 2
	}
	return o.Mode != "" && len(o.UIDs) >= want && len(o.GIDs) >= want
}

func (id identity) owners() owners {
	return owners{id.mode, idRanges(id.uids), idRanges(id.gids)}
}

func idRanges(maps []syscall.SysProcIDMap) (all []idRange) {
	for _, m := range maps {
		all = append(all, idRange{m.ContainerID, m.HostID, m.Size})
	}
	return all
}

// whyNot explains why a driver that chooses has no subordinate ids; it is empty if it has them.
func (id identity) whyNot() string {
	if id.mode != ModeSingle {
		return ""
	}
	if _, err := subidIdentity(); err != nil {
		return " (" + err.Error() + ")"
	}
	return ""
}

// within reports whether each of the ids of the ranges is the same one in the ranges all.
func within(ranges, all []idRange) bool {
	return !slices.ContainsFunc(ranges, func(r idRange) bool {
		return !slices.ContainsFunc(all, func(a idRange) bool {
			skip := r.Machine - a.Machine
			return skip >= 0 && r.Host-a.Host == skip && skip+r.Count <= a.Count
		})
	})
}

// String describes the ids in the middle of a sentence.
func (o owners) String() string {
	users, groups := hostIDs(o.UIDs), hostIDs(o.GIDs)
	if users == groups {
		return "the user and group ids " + users
	}
	return "the user ids " + users + " and the group ids " + groups
}

// hostIDs lists ids of the host, such as "1000, 100000-165535".
func hostIDs(ranges []idRange) string {
	var texts []string
	for _, r := range ranges {
		if r.Count == 1 {
			texts = append(texts, fmt.Sprint(r.Host))
		} else {
			texts = append(texts, fmt.Sprintf("%d-%d", r.Host, r.Host+r.Count-1))
		}
	}
	return strings.Join(texts, ", ")
}

// remedy says how machines get these ids. It is empty if this user's machines can have them now.
func (o owners) remedy() string {
	if o.Mode == ModeRange {
		return "run bake as root, as when they were made"
	}
	if user := o.UIDs[0].Host; user != os.Getuid() {
		return fmt.Sprintf("run bake as the user with the id %d, as when they were made", user)
	}
	if group := o.GIDs[0].Host; group != os.Getgid() {
		return fmt.Sprintf("run bake with the group id %d, as when they were made (see newgrp(1))", group)
	}
	if o.Mode == ModeSingle {
		return ""
	}
	return fmt.Sprintf("install newuidmap and newgidmap (Debian's package uidmap), with the line %s:%d:%d in /etc/subuid and the line %s:%d:%d in /etc/subgid",
		userName(), o.UIDs[1].Host, o.UIDs[1].Count, userName(), o.GIDs[1].Host, o.GIDs[1].Count)
}
