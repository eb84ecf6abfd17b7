package sandbox

import (
	"bufio"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bake/cloud/machine"
)

// TestBootIdentity checks what identifies a boot, and what tells programs that they run on EC2.
func TestBootIdentity(t *testing.T) {
	b := newBench(t, Options{})
	b.eachInit(t, func(t *testing.T, b *bench, init Init) {
		spec := b.spec()
		spec.Type = "t3.micro"
		m := b.start(spec)
		c := b.login(spec)
		const look = "cat /proc/sys/kernel/random/boot_id; cut -d. -f1 /proc/uptime; awk '/^btime/ {print $2}' /proc/stat"
		first := strings.Fields(b.run(c, look))
		if first[0] == strings.TrimSpace(readText("/proc/sys/kernel/random/boot_id")) || len(first[0]) != 36 {
			t.Errorf("the boot's id is %s, which is the host's", first[0])
		}
		if up, err := strconv.Atoi(first[1]); err != nil || up > 120 {
			t.Errorf("the machine is up for %s s", first[1])
		}
		if boot, err := strconv.ParseInt(first[2], 10, 64); err != nil || time.Since(time.Unix(boot, 0)) > 3*time.Minute {
			t.Errorf("the machine booted at %s", first[2])
		}
		if out, err := try(c, "echo x | sudo tee /proc/sys/kernel/random/boot_id"); err == nil {
			t.Errorf("the boot's id can be changed: %s", out)
		}
		if init == InitSystemd {
			if got := b.run(c, "journalctl --list-boots -q --no-pager | wc -l; sudo systemctl is-system-running --wait; systemctl --failed --no-legend"); got != "1\nrunning" {
				t.Errorf("systemd says %q", got)
			}
		}
		const firmware = "cd /sys/class/dmi/id && cat sys_vendor bios_vendor board_asset_tag product_name /sys/devices/virtual/dmi/id/chassis_asset_tag && sudo cat product_uuid product_serial /sys/hypervisor/uuid"
		facts := strings.Split(b.run(c, firmware), "\n")
		if got := strings.Join(facts[:5], "|"); got != "Amazon EC2|Amazon EC2|"+spec.ID+"|t3.micro|Amazon EC2" {
			t.Errorf("the firmware says %q", got)
		}
		if u := facts[5]; !strings.HasPrefix(u, "ec2") || len(u) != 36 || u != facts[6] || u != facts[7] {
			t.Errorf("the machine's UUIDs are %q", facts[5:])
		}
		// The rest of /sys is visible, and read-only.
		b.run(c, "cat /sys/class/net/eth0/address /sys/devices/system/cpu/online && ! sudo touch /sys/class/dmi/id/x && ! sudo sh -c 'echo 1 > /sys/class/net/eth0/mtu'")

		try(c, "sudo reboot")
		b.waitEnd(m)
		if e := m.Exit(); e.Reason != machine.Reboot {
			t.Fatalf("exit is %+v", e)
		}
		spec.First = false
		b.start(spec)
		c = b.login(spec)
		second := strings.Fields(b.run(c, look))
		if second[0] == first[0] {
			t.Errorf("the boot's id is %s after a reboot too", second[0])
		}
		if up, err := strconv.Atoi(second[1]); err != nil || up > 120 {
			t.Errorf("the machine is up for %s s after a reboot", second[1])
		}
		if after := strings.Split(b.run(c, firmware), "\n"); after[5] != facts[5] {
			t.Errorf("a reboot changed the UUID from %s to %s", facts[5], after[5])
		}
	})
}

// machinesSay checks the output of commands on new machines, with systemd and without.
func machinesSay(t *testing.T, commands map[string]string) {
	newBench(t, Options{}).eachInit(t, func(t *testing.T, b *bench, _ Init) {
		spec := b.spec()
		b.start(spec)
		c := b.login(spec)
		for command, want := range commands {
			if out, err := try(c, command); out != want {
				t.Errorf("%s: %q, %v, want %q", command, out, err, want)
			}
		}
	})
}

// TestTellsThatItIsAContainer checks that programs can find out that the machine is a container, in
// all of the usual places, with systemd and without.
func TestTellsThatItIsAContainer(t *testing.T) {
	machinesSay(t, map[string]string{
		"systemd-detect-virt -c":      "container-other",
		"sudo systemd-detect-virt -c": "container-other",
		"systemd-detect-virt":         "container-other",
		"cat /run/systemd/container && stat -c '%a %U' /run/systemd/container": "bake\n644 root",
		"sudo cat /proc/1/environ | tr '\\0' '\\n' | grep ^container=":         "container=bake",
	})
}

// TestStartOfTheImage checks that the image's network parameters and temporary files are set up at
// each start.
func TestStartOfTheImage(t *testing.T) {
	b := newBench(t, Options{})
	b.eachInit(t, func(t *testing.T, b *bench, _ Init) {
		spec := b.spec()
		m := b.start(spec)
		c := b.login(spec)
		b.run(c, "echo net.ipv4.conf.all.log_martians = 1 | sudo tee /etc/sysctl.d/99-test.conf; echo f /var/log/test 0640 root adm - | sudo tee /etc/tmpfiles.d/test.conf; sudo touch /var/log/test")
		try(c, "sudo reboot")
		b.waitEnd(m)
		spec.First = false
		b.start(spec)
		if got := b.run(b.login(spec), "cat /proc/sys/net/ipv4/conf/all/log_martians; stat -c '%a %G' /var/log/test"); got != "1\n640 adm" {
			t.Errorf("log_martians and the file's mode are %q", got)
		}
	})
}

// TestUmaskOfTheUser checks that machines of a user with a restrictive umask can be logged in to
// and create files with the usual modes.
func TestUmaskOfTheUser(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	machinesSay(t, map[string]string{
		"stat -c %a / /run /run/systemd /run/systemd/system | xargs": "755 755 755 755",
		"umask": "0022",
		"sudo sh -c 'umask; grep ^Umask: /proc/self/status' | xargs": "0022 Umask: 0022",
	})
}

// TestCloudInitIsAnnounced checks that logins show whether cloud-init is still running, with
// systemd and without.
func TestCloudInitIsAnnounced(t *testing.T) {
	b := newBench(t, Options{})
	b.eachInit(t, func(t *testing.T, b *bench, _ Init) {
		spec := b.spec()
		spec.Network.Metadata = metadataService(spec)
		b.start(spec)
		c := b.login(spec)
		b.run(c, "test -e /run/cloud-init/enabled")
		if out, err := try(c, "n=0; while ! test -e /run/cloud-init/result.json; do sleep 1; n=$((n+1)); test $n -lt 300 || exit 1; done; sudo grep -c . /root/.ssh/authorized_keys"); err != nil || out != "1" {
			t.Errorf("cloud-init does not end, or has let nobody in: %q, %v", out, err)
		}
	})
}

// TestFailedServices checks that, without systemd too, a failed service is listed until it is
// started again or its state is reset.
func TestFailedServices(t *testing.T) {
	newBench(t, Options{}).eachInit(t, func(t *testing.T, b *bench, _ Init) {
		spec := b.spec()
		b.start(spec)
		c := b.login(spec)
		b.run(c, `sudo sh <<'END'
unit() { printf "[Unit]\nDescription=test\n[Service]\n$2" > /etc/systemd/system/$1.service; }
unit dies "ExecStart=/bin/sh -c 'sleep 0.1; exit 3'\n"
unit once "Type=oneshot\nExecStart=/bin/false\n"
unit known "ExecStart=/bin/sh -c 'sleep 0.1; exit 3'\nSuccessExitStatus=3\n"
unit ready "Type=notify\nNotifyAccess=all\nExecStart=/bin/sh -c 'systemd-notify --ready; sleep 0.2; exit 4'\n"
unit lives "ExecStart=/bin/sleep 1000\n"
unit later "Type=oneshot\nExecStart=/bin/sh -c 'exit 75'\nSuccessExitStatus=TEMPFAIL\n"
unit early "Type=notify\nExecStart=/bin/true\n"
unit named "Type=forking\nPIDFile=/run/named.pid\nExecStart=/usr/local/bin/daemons\n"
unit guess "Type=forking\nExecStart=/usr/local/bin/daemons\n"
unit nobody "ExecStart=/bin/true\nUser=nosuchuser\nRuntimeDirectory=nobody\n"
printf '#!/bin/sh\nsleep 1 & (sleep 0.5; exit 5) & echo $! > /run/named.pid\n' > /usr/local/bin/daemons
printf '#!/bin/sh\nkill $$\n' > /usr/local/bin/killed
chmod +x /usr/local/bin/daemons /usr/local/bin/killed
unit before "ExecStartPre=/usr/local/bin/killed\nExecStart=/bin/true\n"
unit after "ExecStart=/bin/sleep 1000\nExecStartPost=/usr/local/bin/killed\n"
unit meant "ExecStartPre=/usr/local/bin/killed\nExecStart=/usr/local/bin/killed\nSuccessExitStatus=SIGTERM\n"
systemctl daemon-reload
END`)
		const failed = "systemctl --failed --no-legend --plain | tr -s ' ' | sed 's/ *$//'"
		for _, step := range []struct{ command, want string }{
			{failed + "; systemctl is-system-running --wait", "running"},
			{"sudo systemctl start dies known lives; sleep 1; systemctl is-failed dies known lives; echo $?", "failed\ninactive\nactive\n0"},
			{"systemctl is-active dies; echo $?; systemctl status dies | grep -o 'failed (Result: exit-code)'; systemctl -q is-failed lives; echo $?", "failed\n3\nfailed (Result: exit-code)\n1"},
			{"systemctl show -p ActiveState,SubState,Result,ExecMainStatus dies | sort | xargs", "ActiveState=failed ExecMainStatus=3 Result=exit-code SubState=failed"},
			{"sudo systemctl start once 2>/dev/null; echo $?; " + failed, "1\ndies.service loaded failed failed test\nonce.service loaded failed failed test"},
			{"systemctl is-system-running; echo $?", "degraded\n1"},
			{"sudo systemctl reset-failed once; echo $?; " + failed, "0\ndies.service loaded failed failed test"},
			{"sudo systemctl reset-failed nothing 2>&1; echo $?", "Failed to reset failed state of unit nothing.service: Unit nothing.service not loaded.\n1"},
			{"sudo sed -i s/3/0/ /etc/systemd/system/dies.service; sudo systemctl daemon-reload; sudo systemctl start dies; sleep 1; " + failed, ""},
			{"sudo systemctl start ready; sleep 1; systemctl is-failed ready; sudo systemctl kill -s KILL lives; sleep 1; " + failed, "failed\nlives.service loaded failed failed test\nready.service loaded failed failed test"},
			{"systemctl list-units --failed --no-legend --plain 'l*' nothing | cut -d' ' -f1; systemctl list-units --failed --no-legend -t socket; systemctl -q is-system-running; echo $?", "lives.service\n1"},
			{"sudo systemctl reset-failed; sudo systemctl start later; echo $?; systemctl is-failed later", "0\ninactive"},
			{"sudo systemctl start early 2>/dev/null; echo $?; systemctl show -p Result --value early", "1\nprotocol"},
			{"sudo systemctl start named guess; sleep 2; systemctl show -p Result -p ExecMainStatus --value named | sort | xargs; systemctl is-failed guess", "5 exit-code\ninactive"},
			{"sudo systemctl start before 2>/dev/null; echo $?; sudo systemctl start after 2>/dev/null; echo $?; systemctl show -p Result --value before after | xargs", "1\n1\nsignal signal"},
			{"sudo systemctl start meant; echo $?; sleep 0.5; systemctl is-failed meant", "0\ninactive"},
			{"sudo systemctl start nobody 2>/dev/null; sleep 1; systemctl is-failed nobody", "failed"},
			{"for how in -sKILL -s9 '--signal=KILL --kill-who=main'; do sudo systemctl reset-failed; sudo systemctl start lives; sudo systemctl kill $how lives; sleep 0.5; " + failed + "; done",
				strings.Repeat("lives.service loaded failed failed test\n", 2) + "lives.service loaded failed failed test"},
			{"sudo systemctl kill -s nothing lives 2>/dev/null; echo $?; sudo systemctl kill --kill-who=nobody lives 2>/dev/null; echo $?", "1\n1"},
			{"sudo systemctl reset-failed; sudo systemctl start lives && sudo systemctl stop lives; " + failed + "; systemctl is-system-running", "running"},
		} {
			if out, _ := try(c, step.command); out != step.want {
				t.Errorf("%s: %q, want %q", step.command, out, step.want)
			}
		}
	})
}

// TestStandIns runs this program under the names that it has in a machine without systemd, and
// under other names.
func TestStandIns(t *testing.T) {
	b := newBench(t, Options{Init: InitBuiltin})
	spec := b.spec()
	m := b.start(spec)
	c := b.login(spec)
	links := b.run(c, "find /sbin/ /bin/ -lname '*systemctl' -printf '%f\n' | sort | xargs")
	for _, name := range []string{"halt", "poweroff", "reboot", "runlevel", "shutdown", "telinit"} {
		if !strings.Contains(links, name) {
			t.Errorf("%s is none of %s", name, links)
		}
	}
	for command, want := range map[string]string{
		"sudo runlevel":             "N 5",
		"sudo telinit q && echo ok": "ok",
		"sudo telinit 3":            "telinit: this machine runs without systemd and has no other runlevel",
		"sudo ln -sf /usr/bin/systemctl /sbin/whatever; sudo whatever":                               "whatever: not available: this machine runs without systemd",
		"systemctl --version | head -1 | cut -d' ' -f1":                                              "systemd",
		"sudo shutdown -r +60 2>&1 | cut -c1-20 && sudo shutdown -c && test ! -e /run/bake/shutdown": "Reboot scheduled for",
		"sudo shutdown tomorrow":      "Failed to parse time specification: tomorrow",
		"systemctl is-active nothing": "inactive",
	} {
		if out, _ := try(c, command); out != want {
			t.Errorf("%s: %q, want %q", command, out, want)
		}
	}
	// None of the links to the program prints bake's help, whatever the arguments.
	for _, name := range strings.Fields(links) {
		for _, args := range []string{"--help", "-w", "--no-such-option -w"} {
			if out, _ := try(c, "sudo "+name+" "+args); strings.Contains(out, "bake") || strings.Contains(out, "HCL") {
				t.Errorf("%s %s says %q", name, args, out)
			}
			if strings.Contains("halt poweroff reboot", name) == false {
				break
			}
		}
	}
	if out, _ := try(c, "sudo mv /run/bake /run/away; sudo runlevel; sudo mv /run/away /run/bake"); out != "N 5" {
		t.Errorf("without its directory runlevel says %q", out)
	}
	try(c, "sudo telinit 0")
	b.waitEnd(m)
	if e := m.Exit(); e.Reason != machine.PowerOff {
		t.Errorf("exit is %+v", e)
	}
}

func TestShutdownDelay(t *testing.T) {
	now := time.Date(2026, 5, 4, 22, 30, 15, 0, time.UTC)
	for when, want := range map[string]time.Duration{
		"now": 0, "": time.Minute, "+0": 0, "+5": 5 * time.Minute, "10": 10 * time.Minute,
		"23:00": 29*time.Minute + 45*time.Second, "22:30": 24*time.Hour - 15*time.Second,
	} {
		if got, err := shutdownDelay(when, now); got != want || err != nil {
			t.Errorf("%s: %v, %v", when, got, err)
		}
	}
	for _, when := range []string{"tomorrow", "+x", "25:00", "-1"} {
		if got, err := shutdownDelay(when, now); err == nil {
			t.Errorf("%s: %v", when, got)
		}
	}
}

// TestDialWhileStarting checks that early connections wait until something listens, and that later
// ones do not.
func TestDialWhileStarting(t *testing.T) {
	newBench(t, Options{}).eachInit(t, func(t *testing.T, b *bench, _ Init) {
		m := b.start(b.spec())
		conn, err := m.Dial(t.Context(), 22)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if banner, err := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(banner, "SSH-2.0-") {
			t.Errorf("the server says %q, %v", banner, err)
		}
		start := time.Now()
		if _, err := m.Dial(t.Context(), 81); err == nil || time.Since(start) > dialInside/2 {
			t.Errorf("a port where nobody listens: %v after %s", err, time.Since(start))
		}
	})
}
