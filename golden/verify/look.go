package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bake/builder"
	"bake/golden/asroot"
	"bake/golden/findings"
	"bake/internal/cloudinit"
	"bake/internal/prose"
)

// Identity holds everything that must be unique to a machine, and the keys that may log
// in. It is plain data, without secrets.
type Identity struct {
	MachineID string   `json:"machine_id"`
	HostKeys  []string `json:"host_keys"` // in base64
	Login     []string `json:"login"`     // public keys that bake has logged in with, likewise
}

// Learn determines the identity of the machine from which an image will be made.
func Learn(ctx context.Context, m builder.Machine) (Identity, error) {
	seen, err := look(ctx, m)
	id := Identity{MachineID: seen.machineID, HostKeys: seen.hostKeys}
	if fields := strings.Fields(m.Data["SSHPublicKey"].Text); len(fields) > 1 {
		id.Login = append(id.Login, fields[1])
	}
	return id, err
}

// sight is the observed state of a machine.
type sight struct {
	state     string // of systemd; empty: there is none
	failed    []string
	cloudInit string   // running, done, failed or, if there is none, empty
	cloudText string   // why it has failed
	machineID string   //
	hostKeys  []string // in base64
	admitted  map[string]string
	started   string // differs after each start
}

// script prints what it observes, with a keyword before each text.
const script = cloudinit.Busy + `
if [ -d /run/systemd/system ]; then
	say state "$(systemctl is-system-running 2>/dev/null)"
	systemctl list-units --state=failed --plain --no-legend 2>/dev/null | head -n 50 | while read -r unit rest; do say unit "$unit"; done
fi
d=/run/cloud-init
if [ -e $d/result.json ]; then
	case $(tr -d ' \t\n' <$d/result.json) in
	*'"errors":[]'*) say cloud-init done;;
	*) say cloud-init failed; say cloud-text "$(head -c 2000 $d/result.json)";;
	esac
elif busy; then say cloud-init running; fi
say machine-id "$(head -c 64 /etc/machine-id 2>/dev/null)"
for f in /etc/ssh/ssh_host_*_key.pub; do
	if [ -f "$f" ]; then say host-key "$(head -c 4000 "$f" | head -n 1)"; fi
done
keys() { if [ -f "$1" ]; then head -c 200000 "$1" | while read -r l; do case $l in ''|'#'*) ;; *) say key "$1" "$l";; esac; done; fi; }
cut -d: -f6 /etc/passwd | sort -u | while read -r home; do
	keys "$home/.ssh/authorized_keys"
	keys "$home/.ssh/authorized_keys2"
done
say started "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null) $(sed 's/.*) //' /proc/1/stat | cut -d' ' -f20)"
`

// look examines a machine as root.
func look(ctx context.Context, m builder.Machine) (sight, error) {
	said, err := asroot.Run(ctx, m, script)
	return parse(said), err
}

func parse(said []string) sight {
	s := sight{admitted: map[string]string{}}
	for _, l := range said {
		word, text, _ := strings.Cut(l, " ")
		switch word {
		case "state":
			s.state = strings.TrimSpace(text)
		case "unit":
			s.failed = append(s.failed, text)
		case "cloud-init":
			s.cloudInit = text
		case "cloud-text":
			s.cloudText = text
		case "machine-id":
			s.machineID = strings.TrimSpace(text)
		case "host-key":
			if fields := strings.Fields(text); len(fields) > 1 {
				s.hostKeys = append(s.hostKeys, fields[1])
			}
		case "key":
			file, key, _ := strings.Cut(text, " ")
			for _, word := range strings.Fields(key) {
				s.admitted[word] = file
			}
		case "started":
			s.started = text
		}
	}
	return s
}

// starting reports whether the machine is still starting.
func (s sight) starting() bool {
	return s.state == "initializing" || s.state == "starting" || s.cloudInit == "running"
}

// judge compares the machine with the one from which its image was made.
func (s sight) judge(of Identity) []findings.Finding {
	shared := ""
	for _, k := range s.hostKeys {
		if slices.Contains(of.HostKeys, k) {
			shared = "The machine has a host key of the machine that the image was made of. Delete /etc/ssh/ssh_host_* before the image is made, and have them made at the first start, as cloud-init does."
		}
	}
	sameID := ""
	if s.machineID == of.MachineID && s.machineID != "" {
		sameID = "/etc/machine-id is the id of the machine that the image was made from. Empty the file before the image is made."
	}
	admitted := ""
	for _, k := range of.Login {
		if file, ok := s.admitted[k]; ok {
			admitted = fmt.Sprintf("%s lets in the key that the image was made with. Remove it before the image is made, or set ssh_clear_authorized_keys.", prose.Excerpt(file))
		}
	}
	return []findings.Finding{
		s.running("boot-target"),
		s.cloud("boot-cloud-init"),
		finding("boot-host-keys", "Host keys are the machine's own", findings.Critical, shared),
		finding("boot-machine-id", "The machine has an ID of its own", findings.High, sameID),
		finding("boot-build-key", "No key of the build is let in", findings.Critical, admitted),
	}
}

// afterReboot judges a machine after its nth reboot.
func (s sight) afterReboot(before sight, n int) []findings.Finding {
	other := ""
	if s.machineID != before.machineID {
		other = "/etc/machine-id has changed with a restart."
	}
	slices.Sort(s.hostKeys)
	was := slices.Sorted(slices.Values(before.hostKeys))
	keys := ""
	if !slices.Equal(s.hostKeys, was) {
		keys = "The host keys have changed with a restart, so that SSH clients refuse the machine."
	}
	id := fmt.Sprintf("reboot-%d-", n)
	return []findings.Finding{
		s.running(id + "target"),
		finding(id+"machine-id", "The machine keeps its ID", findings.Medium, other),
		finding(id+"host-keys", "The machine keeps its host keys", findings.High, keys),
	}
}

// running judges how the machine has started.
func (s sight) running(id string) findings.Finding {
	f := findings.Finding{ID: id, Title: "The machine starts without failed units", Severity: findings.High, Result: findings.Pass, Evidence: s.state}
	switch {
	case s.state == "" || s.state == "offline" || s.state == "unknown":
		f.Result, f.Evidence = findings.NotApplicable, "systemd is not the init of the machine"
	case len(s.failed) > 0:
		f.Result, f.Evidence = findings.Fail, "failed units: "+prose.Excerpt(strings.Join(s.failed, ", "))
	case s.state != "running":
		f.Result, f.Evidence = findings.Fail, "systemctl is-system-running: "+prose.Excerpt(s.state)
	}
	return f
}

// cloud judges the result of cloud-init.
func (s sight) cloud(id string) findings.Finding {
	f := findings.Finding{ID: id, Title: "cloud-init finishes without errors", Severity: findings.High, Result: findings.Pass}
	switch s.cloudInit {
	case "":
		f.Result, f.Evidence = findings.NotApplicable, "the machine has no cloud-init, or it is turned off"
	case "failed":
		f.Result, f.Evidence = findings.Fail, prose.Excerpt(s.cloudText)
	}
	return f
}

// finding returns a finding that passes if wrong is empty.
func finding(id, title string, severity findings.Severity, wrong string) findings.Finding {
	f := findings.Finding{ID: id, Title: title, Severity: severity, Result: findings.Pass}
	if wrong != "" {
		f.Result, f.Evidence = findings.Fail, wrong
	}
	return f
}
