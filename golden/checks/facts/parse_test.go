package facts

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bake/communicator"
)

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestInstalled(t *testing.T) {
	dpkg := "bash\tamd64\t5.2-1\tinstall ok installed\nold\tall\t1\tdeinstall ok config-files\nheld\tall\t2:3\thold ok installed\nlibc6\tamd64\t2.36\tinstall ok installed\nlibc6\ti386\t2.35\tinstall ok installed\n"
	rpm := "kernel\tx86_64\t5.14.0-1.el9\nkernel\tx86_64\t5.14.0-2.el9\nbind\tx86_64\t32:9.16-1.el9\nkernel-core\tx86_64\t9-9\n"
	apk := "musl-1.2.4-r2\nmusl-utils-1.2.5-r0\nWARNING: opening /x\n"
	pacman := "bash 5.2.026-2\nbash-completion 2.11-3\n"
	tests := []struct {
		manager, list, name string
		want                []string
	}{
		{"dpkg", dpkg, "bash", []string{"5.2-1"}},
		{"dpkg", dpkg, "old", nil},
		{"dpkg", dpkg, "held", []string{"2:3"}},
		{"dpkg", dpkg, "libc6", []string{"2.36", "2.35"}},
		{"dpkg", dpkg, "libc6:i386", []string{"2.35"}},
		{"dpkg", dpkg, "lib*", []string{"2.36", "2.35"}},
		{"dpkg", dpkg, "[", nil},
		{"rpm", rpm, "kernel", []string{"5.14.0-1.el9", "5.14.0-2.el9"}},
		{"rpm", rpm, "kernel-5.14.0-2.el9", []string{"5.14.0-2.el9"}},
		{"rpm", rpm, "kernel-5.14.0", []string{"5.14.0-1.el9", "5.14.0-2.el9"}},
		{"rpm", rpm, "kernel.x86_64", []string{"5.14.0-1.el9", "5.14.0-2.el9"}},
		{"rpm", rpm, "kernel.i686", nil},
		{"rpm", rpm, "bind", []string{"32:9.16-1.el9"}},
		{"rpm", rpm, "bind-9.16-1.el9.x86_64", []string{"32:9.16-1.el9"}},
		{"rpm", rpm, "kern*", nil},
		{"apk", apk, "musl", []string{"1.2.4-r2"}},
		{"apk", apk, "musl-utils", []string{"1.2.5-r0"}},
		{"apk", apk, "utils", nil},
		{"pacman", pacman, "bash", []string{"5.2.026-2"}},
		{"pacman", pacman, "ba", nil},
		{"nosuch", pacman, "bash", nil},
	}
	for _, tt := range tests {
		same(t, tt.manager+" "+tt.name, installed(tt.manager, tt.list, tt.name), tt.want)
	}
}

func TestServices(t *testing.T) {
	tests := []struct {
		name  string
		reply reply
		want  Fact
	}{
		{"active", reply{out: []byte("active\n")}, known(true)},
		{"inactive", reply{status: 3, out: []byte("inactive\n")}, known(false)},
		{"static counts as enabled", reply{out: []byte("static\n")}, known(true)},
		{"masked", reply{status: 1, out: []byte("masked\n")}, known(false)},
		{"unknown", reply{status: 1, err: []byte("Failed to get unit file state for x.service: No such file or directory\n")}, known(false)},
		{"no bus", reply{status: 1, err: []byte("Failed to connect to bus: No such file or directory\n")}, unknown("Failed to connect to bus: No such file or directory")},
		{"another init", reply{status: 1, err: []byte("System has not been booted with systemd as init system (PID 1). Can't operate.\n")}, unknown("System has not been booted with systemd as init system (PID 1). Can't operate.")},
		{"chroot", reply{err: []byte("Running in chroot, ignoring command 'is-active'\n")}, unknown("Running in chroot, ignoring command 'is-active'")},
		{"killed", reply{status: 137, out: []byte("active\n")}, unknown("it took too long, or was killed")},
	}
	for _, tt := range tests {
		same(t, tt.name, unitState(tt.reply), tt.want)
	}
	enabled, levels := serviceEnabled(reply{out: []byte("/etc/runlevels/default/sshd\n/etc/runlevels/boot/sshd\n")}, false)
	same(t, "OpenRC", []Fact{enabled, levels}, []Fact{known(true), known([]string{"default", "boot"})})
	enabled, levels = serviceEnabled(reply{out: []byte("/etc/rc3.d/S10network\n/etc/rc5.d/S10network\n")}, false)
	same(t, "SysV", []Fact{enabled, levels}, []Fact{known(true), known([]string{"3", "5"})})
	same(t, "status 0", serviceRunning(reply{}, false), known(true))
	same(t, "status 3", serviceRunning(reply{status: 3}, false), known(false))
	same(t, "no service", serviceRunning(reply{status: 127, err: []byte("no\n")}, false), unknown("no"))
}

func TestProcesses(t *testing.T) {
	out := "77 (sh) S 70 77 77 0\n1 (systemd) S 0 1 1 0\n9 (a (b) c) S 1 9 9 0\n77 (sh) S 70 77 77 0\n78 (base64) S 70 77 77 0\n90 (two\nwords) S 1 9 9 0\n"
	names, init := processes(out)
	same(t, "names", names, map[string]bool{"systemd": true, "a (b": true})
	same(t, "init", init, true)
	_, init = processes("77 (sh) S 70 77 77 0\n88 (mine) S 1 9 9 0\n")
	same(t, "hidden", init, false)
}

func TestPorts(t *testing.T) {
	out := "tcp\n  sl  local_address rem_address   st tx_queue\n" +
		"   0: 00000000:0016 00000000:0000 0A 00000000:00000000\n   1: 0100007F:0016 0100007F:1234 01 00000000:00000000\n" +
		"tcp6\n  sl  local_address                         remote_address                        st\n" +
		"   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0\n" +
		"   1: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 0\n" +
		"   2: 000080FE00000000FF005450B6AD1DFE:0050 00000000000000000000000000000000:0000 0A 0\n" +
		"udp\n  sl\n   0: 3500007F:0035 00000000:0000 07 0\n   1: zz:0035 00000000:0000 07 0\n"
	for want, ips := range map[string][]string{
		"tcp:22": {"0.0.0.0"}, "tcp6:22": {"::"}, "tcp6:8080": {"127.0.0.1"}, "tcp6:80": {"FE80::5054:FF:FE1D:ADB6"}, "udp:53": {"127.0.0.53"}, "tcp:4660": nil, "udp6:53": nil,
	} {
		same(t, want, listening(out, want), ips)
	}
}

func TestMounts(t *testing.T) {
	table := "22 1 8:1 / / rw,relatime,rw shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n" +
		"30 22 0:2 / /mnt/a\\040b ro,nosuid - fuse.x src\\040e rw,context=\"a,b\",size=1k\n" +
		"31 22 0:3 / /mnt/a\\040b rw - tmpfs over rw\nbroken\n"
	same(t, "root", mounted(table, "/"), Answer{"exists": known(true), "opts": known([]string{"rw", "relatime"}), "vfs-opts": known([]string{"rw", "errors=remount-ro"}), "source": known("/dev/sda1"), "filesystem": known("ext4")})
	same(t, "the lowest of two", mounted(table, "/mnt/a b"), Answer{"exists": known(true), "opts": known([]string{"ro", "nosuid"}), "vfs-opts": known([]string{"rw", `context="a,b"`, "size=1k"}), "source": known("src e"), "filesystem": known("fuse.x")})
	if a := mounted(table, "/mnt"); a != nil {
		t.Errorf("/mnt: %v", a)
	}
	same(t, "usage", used(reply{out: []byte("1000 124\n")}), known(int64(88)))
	same(t, "no blocks", used(reply{out: []byte("0 0\n")}), unknown("the file system has no blocks"))
	if f := used(reply{out: []byte("1 2\n")}); f.Err == "" {
		t.Error("more is free than there is")
	}
}

func TestAddresses(t *testing.T) {
	same(t, "ip", cidrs("1: lo    inet 127.0.0.1/8 scope host lo\\ valid\n1: lo    inet6 ::1/128 scope host\n2: ppp0    inet 10.0.0.1 peer 10.0.0.2/32 scope global\n"), []string{"127.0.0.1/8", "::1/128", "10.0.0.1/32"})
	same(t, "hosts", inHosts("127.0.0.1 localhost # x other\n::1\tLocalhost ip6\nbroken localhost\n", "localhost"), []string{"127.0.0.1", "::1"})
	same(t, "in a comment", len(inHosts("127.0.0.1 localhost # x other\n", "other")), 0)
}

func TestStat(t *testing.T) {
	a := statted("0\n12\n5\n89ff\nroot\nUNKNOWN\n")
	same(t, "mode", a["mode"], known("4777"))
	same(t, "group", a["group"], unknown("the number 12 has no name"))
	if f := statted("what\n")["exists"]; f.Err == "" {
		t.Errorf("nonsense: %v", f)
	}
	if f := statted("x\n0\n0\nzz\na\nb\n"); f["uid"].Err == "" || f["mode"].Err == "" || f["filetype"].Err == "" {
		t.Errorf("nonsense: %v", f)
	}
}

func TestDug(t *testing.T) {
	const head = ";; Got answer:\n;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 1\n"
	for _, tt := range []struct{ kind, out, want, err string }{
		{"A", head + "www.example.com.\t300\tIN\tCNAME\tx.example.com.\nx.example.com. 300 IN A 192.0.2.7\n", "[192.0.2.7]", ""},
		{"TXT", head + "a. 1 IN TXT \"Hello DNS\" \"b\"\n", "[Hello DNS b]", ""},
		{"CAA", head + "a. 1 IN CAA 0 issue \"ca.example\"\n", "[0 issue ca.example]", ""},
		{"SSHFP", head + "a. 1 IN SSHFP 1 2 422F22EFB548FEAC403A633A86F74553599B85AC93E7EC3BB0A46B6C D6DDABF8\n", "[1 2 422F22EFB548FEAC403A633A86F74553599B85AC93E7EC3BB0A46B6CD6DDABF8]", ""},
		{"MX", ";; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN, id: 1\n", "[]", ""},
		{"MX", ";; ->>HEADER<<- opcode: QUERY, status: SERVFAIL, id: 1\n", "[]", "SERVFAIL"},
		{"MX", ";; connection timed out\n", "[]", "does not answer"},
	} {
		got, err := dug(tt.out, tt.kind)
		if fmt.Sprint(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s of %q: %v, %v", tt.kind, tt.out, got, err)
		}
	}
}

func TestHTTPOutput(t *testing.T) {
	a := responded(reply{out: []byte("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\nHTTP/2 200\r\nx-two: b\r\ncontent-type: text/plain\r\n\r\nbody\n")})
	same(t, "answer", a, Answer{"status": known(int64(200)), "headers": known(Text("Content-Type: text/plain\nX-Two: b")), "body": known(Text("body\n"))})
}

// machine gives the answers that a test sets.
type machine struct {
	communicator.Communicator
	say func(ctx context.Context, script string, out io.Writer) (int, error)
}

func (m machine) Run(ctx context.Context, c communicator.Command) (communicator.Status, error) {
	text, err := io.ReadAll(c.Stdin)
	if err != nil {
		return communicator.Status{}, err
	}
	code, err := m.say(ctx, string(text), c.Stdout)
	return communicator.Status{Code: code}, err
}

// answering is a machine that sends frames, in base64 if they are not.
func answering(frames string) machine {
	return machine{say: func(_ context.Context, script string, out io.Writer) (int, error) {
		_, nonce, _ := strings.Cut(script, "# end ")
		nonce, _, _ = strings.Cut(nonce, "'")
		_, err := io.WriteString(out, "Welcome!\r\nbake facts "+nonce+"\r\n"+base64.StdEncoding.EncodeToString([]byte(frames))+"\r\nbake end "+nonce+"\n")
		return 0, err
	}}
}

func TestMachinesThatLie(t *testing.T) {
	question := []Question{{Kind: "user", Key: "root", Attributes: []string{"exists"}}}
	const good = "0 0 22 0\nroot:x:0:0::/root:/sh\n\n1 0 10 0\nroot:x:0:\n\n2 0 0 0\n\n"
	answers, err := Learn(t.Context(), answering(good), Login, question)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "an honest one", answers, []Answer{{"exists": known(true)}})
	for name, frames := range map[string]string{
		"ends early":       good[:20],
		"too long":         good + "3 0 0 0\n\n",
		"another order":    "1 0 0 0\n\n0 0 0 0\n\n2 0 0 0\n\n",
		"twice":            "0 0 0 0\n\n0 0 0 0\n\n2 0 0 0\n\n",
		"no length":        "0 0 -1 0\n\n",
		"a huge length":    "0 0 99999999999999999999 0\n\n",
		"more than it has": "0 0 4000000 0\nx",
		"no status":        "0 x 0 0\n\n",
		"a large status":   "0 256 0 0\n\n",
		"no end of a line": strings.Repeat("0", 1000),
		"no room":          strings.Replace(good, "2 0 0 0\n\n", "2 0 5 0\nfull\n\n", 1),
		"wrong length":     strings.Replace(good, "0 0 22 0", "0 0 21 0", 1),
		"nothing":          "",
	} {
		if answers, err := Learn(t.Context(), answering(frames), Login, question); err == nil {
			t.Errorf("%s: %v", name, answers)
		}
	}
}

func TestRefusal(t *testing.T) {
	m := machine{say: func(_ context.Context, _ string, out io.Writer) (int, error) {
		_, err := io.WriteString(out, "sudo: a password is required\n")
		return 1, err
	}}
	_, err := Learn(t.Context(), m, Root, []Question{{Kind: "group", Key: "root", Attributes: []string{"exists"}}})
	if err == nil || !strings.HasPrefix(err.Error(), "cannot look at the machine as root: sudo: a password is required; log in as root") {
		t.Error(err)
	}
}

// A machine that never answers, and one that never stops.
func TestMachinesThatStall(t *testing.T) {
	for name, say := range map[string]func(ctx context.Context, out io.Writer) error{
		"silent": func(ctx context.Context, _ io.Writer) error {
			<-ctx.Done()
			return context.Cause(ctx)
		},
		"endless": func(ctx context.Context, out io.Writer) error {
			for ctx.Err() == nil {
				if _, err := out.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
				time.Sleep(time.Second)
			}
			return context.Cause(ctx)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			m := machine{say: func(ctx context.Context, _ string, out io.Writer) (int, error) { return 0, say(ctx, out) }}
			_, err := Learn(t.Context(), m, Login, []Question{
				{Kind: "command", Key: "true", Attributes: []string{"exit-status"}, Options: map[string]string{"timeout": "60000"}},
			})
			if err == nil || err.Error() != "the machine has not answered within 4m0s" {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(start); took < 4*time.Minute || took > 5*time.Minute {
				t.Errorf("%s: %s", name, took)
			}
		})
	}
}

// An incomplete script is not run at all.
func TestPartOfAScript(t *testing.T) {
	whole := input("echo one\n# end N", "N")
	if !strings.Contains(whole, "*'# end N') eval") {
		t.Fatalf("the input is %q, want the end of the script before eval", whole)
	}
	p := newPlan()
	p.command("rm -rf /somewhere/else", time.Second)
	if s := p.script("N"); !strings.HasSuffix(s, "\n# end N") {
		t.Error("the script does not end with what shows that it is whole")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("0 0 1 2\nabc\n1 late 0 0\n\n2 0 0 0\n\n", false)
	f.Add("0 missing 9999999 0\n", true)
	f.Fuzz(func(t *testing.T, frames string, cut bool) {
		p := newPlan()
		p.probe("p_system")
		p.command("true", time.Second)
		replies, err := p.parse(strings.NewReader(frames), cut)
		if err != nil {
			return
		}
		if len(replies) != 3 {
			t.Fatalf("%d replies", len(replies))
		}
		for _, r := range replies {
			if len(r.out) > maxText+1 || len(r.out)+len(r.err) > len(frames) {
				t.Fatalf("more than there is: %d, %d", len(r.out), len(r.err))
			}
			_ = r.failed()
		}
	})
}

// TestFirstLine: the output of a machine cannot control the terminal that shows it.
func TestFirstLine(t *testing.T) {
	if got := firstLine([]byte(" \x1b[2Jno\tway\u202e\x9b\r\nmore")); got != "\uFFFD[2Jno way\uFFFD\uFFFD" {
		t.Errorf("%q", got)
	}
}
