package verify

import (
	"slices"
	"testing"

	"bake/golden/findings"
)

var healthy = []string{
	"state running", "cloud-init done", "machine-id 11", "host-key ssh-ed25519 AAAAhost root@b",
	"key /home/admin/.ssh/authorized_keys ssh-ed25519 AAAAguest packer", "started boot 7",
}

// failed returns the IDs of the findings that did not pass.
func failed(all []findings.Finding) (ids []string) {
	for _, f := range all {
		if f.Result == findings.Fail {
			ids = append(ids, f.ID)
		}
	}
	return ids
}

func TestJudge(t *testing.T) {
	build := Identity{MachineID: "10", HostKeys: []string{"AAAAbuild"}, Login: []string{"AAAAlogin"}}
	for name, tt := range map[string]struct {
		said []string
		want []string
	}{
		"healthy":     {healthy, nil},
		"no systemd":  {slices.Replace(slices.Clone(healthy), 0, 1, "state offline"), nil},
		"failed unit": {append([]string{"unit app.service"}, slices.Replace(slices.Clone(healthy), 0, 1, "state degraded")...), []string{"boot-target"}},
		"maintenance": {slices.Replace(slices.Clone(healthy), 0, 1, "state maintenance"), []string{"boot-target"}},
		"cloud-init":  {slices.Replace(slices.Clone(healthy), 1, 2, "cloud-init failed", "cloud-text no such package"), []string{"boot-cloud-init"}},
		"machine ID":  {slices.Replace(slices.Clone(healthy), 2, 3, "machine-id 10"), []string{"boot-machine-id"}},
		"host key":    {append(slices.Clone(healthy), "host-key ssh-rsa AAAAbuild"), []string{"boot-host-keys"}},
		"login":       {append(slices.Clone(healthy), `key /root/.ssh/authorized_keys command="x y" ssh-rsa AAAAlogin packer`), []string{"boot-build-key"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := failed(parse(tt.said).judge(build)); !slices.Equal(got, tt.want) {
				t.Errorf("failed: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAfterReboot(t *testing.T) {
	before := parse(healthy)
	again := parse(append(slices.Clone(healthy[:5]), "started boot 9"))
	if again.started == before.started {
		t.Error("the restart is not seen")
	}
	if got := failed(again.afterReboot(before, 1)); got != nil {
		t.Errorf("failed: %v", got)
	}
	other := parse([]string{"state running", "machine-id 12", "host-key ssh-ed25519 AAAAother"})
	want := []string{"reboot-2-machine-id", "reboot-2-host-keys"}
	if got := failed(other.afterReboot(before, 2)); !slices.Equal(got, want) {
		t.Errorf("failed: %v, want %v", got, want)
	}
}

func TestStarting(t *testing.T) {
	for said, want := range map[string]bool{"state starting": true, "state initializing": true, "cloud-init running": true, "state degraded": false} {
		if got := parse([]string{said}).starting(); got != want {
			t.Errorf("%s: %v", said, got)
		}
	}
}
