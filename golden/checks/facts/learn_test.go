//go:build unix

package facts_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"bake/communicator"
	"bake/golden/checks/facts"
)

// local is the host that runs the test, as a machine.
type local struct {
	communicator.Communicator
	t     *testing.T
	shell string   // "": sh
	env   []string // nil: that of the test
	dir   string   // where it starts; "": an empty one
	calls int
}

func (l *local) Run(ctx context.Context, c communicator.Command) (communicator.Status, error) {
	l.calls++
	sh := l.shell
	if sh == "" {
		sh = "sh"
	}
	line := c.Line
	if line == "sh -s" {
		line = "exec " + sh + " -s"
	}
	cmd := exec.CommandContext(ctx, sh, "-c", line)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = c.Stdin, c.Stdout, c.Stderr, l.env
	cmd.Dir = l.dir
	if cmd.Dir == "" {
		cmd.Dir = l.t.TempDir()
	}
	err := cmd.Run()
	if ctx.Err() != nil {
		return communicator.Status{}, context.Cause(ctx)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return communicator.Status{Code: exit.ExitCode()}, nil
	}
	return communicator.Status{}, err
}

// forwarding is a machine that forwards connections.
type forwarding struct {
	*local
	refuse error
}

func (f *forwarding) Forward(ctx context.Context, addr string) (net.Conn, error) {
	if f.refuse != nil {
		return nil, f.refuse
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

func learn(t *testing.T, c communicator.Communicator, questions ...facts.Question) []facts.Answer {
	t.Helper()
	answers, err := facts.Learn(t.Context(), c, facts.Login, questions)
	if err != nil {
		t.Fatal(err)
	}
	if len(answers) != len(questions) {
		t.Fatalf("%d answers to %d questions", len(answers), len(questions))
	}
	return answers
}

func q(kind, key string, attributes ...string) facts.Question {
	return facts.Question{Kind: kind, Key: key, Attributes: attributes}
}

func is(v any) facts.Fact { return facts.Fact{Value: v} }

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// shells are those of the distributions that are here.
func shells(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, sh := range []string{"dash", "bash"} {
		if path, err := exec.LookPath(sh); err == nil {
			all = append(all, path)
		}
	}
	if len(all) == 0 {
		all = []string{"sh"}
	}
	return all
}

func TestFiles(t *testing.T) {
	for _, sh := range shells(t) {
		t.Run(filepath.Base(sh), func(t *testing.T) { testFiles(t, &local{t: t, shell: sh}) })
	}
}

func testFiles(t *testing.T, m *local) {
	dir := t.TempDir()
	m.dir = dir
	odd := filepath.Join(dir, "it's \"odd\"\n$(touch run)")
	text := "#0 0 5 5\nbake end\x00\xff\r\nno newline"
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	write(odd, text, 0o640|os.ModeSetgid)
	link, pipe, big := filepath.Join(dir, "link"), filepath.Join(dir, "pipe"), filepath.Join(dir, "big")
	if err := errors.Join(os.Symlink("no where\n", link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	write(big, strings.Repeat("x", 5<<20), 0o600)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseInt(me.Uid, 10, 64)
	sum := sha256.Sum256([]byte(text))

	got := learn(t, m,
		q("file", odd, "exists", "mode", "uid", "owner", "size", "filetype", "contents", "sha256", "linked-to", "nosuch"),
		q("file", link, "exists", "mode", "filetype", "linked-to", "contents"),
		q("file", filepath.Join(dir, "absent"), "exists", "mode", "contents"),
		q("file", filepath.Join(odd, "below"), "exists"),
		q("file", pipe, "exists", "filetype", "contents", "md5"),
		q("file", big, "size", "contents"),
		q("file", dir, "filetype", "contents"),
		q("file", "~", "filetype"),
		q("file", "~no-such-user/x", "exists"),
		q("file", "~root/../etc/passwd", "exists"),
		q("file", "-n", "exists"),
		q("file", "a\x00b", "exists"),
		q("nosuch", "x", "exists"),
	)
	same(t, "a file", got[0], facts.Answer{
		"exists": is(true), "mode": is("2640"), "uid": is(uid), "owner": is(me.Username), "size": is(int64(len(text))), "filetype": is("file"),
		"contents": is(facts.Text(text)), "sha256": is(hex.EncodeToString(sum[:])),
		"linked-to": {Err: "it is not a symbolic link"}, "nosuch": {Err: `file has no attribute "nosuch"`},
	})
	if _, err := os.Lstat(filepath.Join(dir, "run")); err == nil {
		t.Error("the name of a file was run")
	}
	same(t, "a link", [4]any{got[1]["exists"].Value, got[1]["mode"].Value, got[1]["filetype"].Value, got[1]["linked-to"].Value}, [4]any{true, "0777", "symlink", "no where\n"})
	if got[1]["contents"].Err == "" {
		t.Error("a link to nothing has contents")
	}
	same(t, "what is absent", got[2], facts.Answer{"exists": is(false), "mode": {Err: "there is no such file"}, "contents": {Err: "there is no such file"}})
	if f := got[3]["exists"]; !strings.Contains(f.Err, "Not a directory") {
		t.Errorf("below a file: %v", f)
	}
	same(t, "a pipe", [2]any{got[4]["exists"].Value, got[4]["filetype"].Value}, [2]any{true, "pipe"})
	for _, name := range []string{"contents", "md5"} {
		if f := got[4][name]; !strings.Contains(f.Err, "not a regular file") {
			t.Errorf("%s of a pipe: %v", name, f)
		}
	}
	if f := got[5]["contents"]; f.Err != "it is longer than 4 MB" || len(f.Value.(facts.Text)) != 4<<20 {
		t.Errorf("of a large file: %d bytes, %s", len(f.Value.(facts.Text)), f.Err)
	}
	same(t, "its size", got[5]["size"], is(int64(5<<20)))
	same(t, "a directory", got[6]["filetype"], is("directory"))
	if got[6]["contents"].Err == "" {
		t.Error("a directory has contents")
	}
	same(t, "home", got[7]["filetype"], is("directory"))
	same(t, "nobody's home", got[8]["exists"], facts.Fact{Err: "the machine has no user no-such-user"})
	same(t, "root's home", got[9]["exists"].Err == "" || os.Getuid() != 0, true)
	same(t, "a relative path", got[10]["exists"], is(false))
	same(t, "NUL", got[11]["exists"], facts.Fact{Err: "its name has a NUL byte"})
	same(t, "an unknown kind", got[12]["exists"], facts.Fact{Err: `"nosuch" is nothing that a machine is asked about`})
	if m.calls != 1 {
		t.Errorf("%d round trips", m.calls)
	}
}

func TestCommands(t *testing.T) {
	for _, sh := range shells(t) {
		t.Run(filepath.Base(sh), func(t *testing.T) { testCommands(t, &local{t: t, shell: sh}) })
	}
}

func testCommands(t *testing.T, m *local) {
	dir := t.TempDir()
	slow := facts.Question{Kind: "command", Key: "sleep 4711 & echo $! >" + dir + "/pid; sleep 4712", Attributes: []string{"exit-status", "stdout"}, Options: map[string]string{"timeout": "1000"}}
	questions := []facts.Question{
		q("command", "echo out; echo err >&2; exit 3", "exit-status", "stdout", "stderr"),
		q("command", "printf '0 0 9 9\\n\\000\\377'; cat", "exit-status", "stdout", "stderr"),
		q("command", "kill -9 $$", "exit-status"),
		q("command", "no-such-command-here", "exit-status"),
		slow,
		q("command", "head -c 5000000 /dev/zero", "exit-status", "stdout"),
		q("command", "line one\nexit 0", "exit-status"),
		q("command", "sleep 4713 & echo $! >"+dir+"/daemon", "exit-status"),
		q("command", "umask; echo ${LC_ALL-unset}", "stdout"),
		{Kind: "command", Key: "true", Attributes: []string{"exit-status"}, Options: map[string]string{"nosuch": "1"}},
		{Kind: "command", Key: "true", Attributes: []string{"exit-status"}, Options: map[string]string{"timeout": "soon"}},
	}
	for i := range 20 {
		questions = append(questions, q("command", "echo "+strconv.Itoa(i), "stdout"))
	}
	got := learn(t, m, questions...)
	same(t, "a command", got[0], facts.Answer{"exit-status": is(int64(3)), "stdout": is(facts.Text("out\n")), "stderr": is(facts.Text("err\n"))})
	same(t, "bytes", got[1], facts.Answer{"exit-status": is(int64(0)), "stdout": is(facts.Text("0 0 9 9\n\x00\xff")), "stderr": is(facts.Text(""))})
	same(t, "a signal", got[2], facts.Answer{"exit-status": is(int64(137))})
	same(t, "no command", got[3], facts.Answer{"exit-status": is(int64(127))})
	late := facts.Fact{Err: "it was ended after 1s (timeout)"}
	same(t, "a slow one", got[4], facts.Answer{"exit-status": late, "stdout": late})
	if f := got[5]["stdout"]; f.Err != "it is longer than 4 MB" {
		t.Errorf("much output: %s", f.Err)
	}
	same(t, "with much output", got[5]["exit-status"], is(int64(0)))
	same(t, "several lines", got[6], facts.Answer{"exit-status": is(int64(0))})
	own, err := exec.Command("sh", "-c", "umask; echo ${LC_ALL-unset}").Output()
	if err != nil {
		t.Fatal(err)
	}
	same(t, "its environment", got[8], facts.Answer{"stdout": is(facts.Text(own))})
	same(t, "an option", got[9]["exit-status"], facts.Fact{Err: "the option nosuch of command is not supported"})
	same(t, "a timeout", got[10]["exit-status"], facts.Fact{Err: `the timeout "soon" is no number of milliseconds`})
	for i := range 20 {
		same(t, "one of many", got[11+i]["stdout"], is(facts.Text(strconv.Itoa(i)+"\n")))
	}
	for seconds := 2; seconds < 60; seconds *= 2 { // a busy host may have ended the slow one before it began
		if _, err := os.Stat(filepath.Join(dir, "pid")); err == nil {
			break
		}
		slow.Options["timeout"] = strconv.Itoa(1000 * seconds)
		learn(t, m, slow)
	}
	for _, file := range []string{"pid", "daemon"} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if err := gone(pid); err != nil {
			t.Errorf("%s: a child of a command is left: %v", file, err)
		}
	}
}

// gone waits until a killed process has ended.
func gone(pid int) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return nil
		}
	}
	return errors.New("it runs")
}

func TestNothingStays(t *testing.T) {
	got := learn(t, &local{t: t}, q("command", `tr '\0' '\n' </proc/$PPID/cmdline | tail -n 1`, "stdout"), q("file", "/", "exists"))
	out, _ := got[0]["stdout"].Value.(facts.Text)
	file := strings.TrimSpace(string(out))
	if !strings.Contains(file, "/bake.") {
		t.Fatalf("%q is not where the output goes", file)
	}
	if _, err := os.Lstat(filepath.Dir(file)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", filepath.Dir(file), err)
	}
}

// cut is a machine whose session ends as soon as a directory has been made, in dir.
type cut struct {
	*local
	dir string
}

func (m cut) Run(ctx context.Context, c communicator.Command) (communicator.Status, error) {
	c.Stdin = io.MultiReader(strings.NewReader("mktemp() { command mktemp -d '"+m.dir+"/XXXXXX'; kill -TERM $$; }\n"), c.Stdin)
	return m.local.Run(ctx, c)
}

// TestCut: nothing stays of a session that ends early.
func TestCut(t *testing.T) {
	for _, sh := range shells(t) {
		m := cut{&local{t: t, shell: sh}, t.TempDir()}
		_, err := facts.Learn(t.Context(), m, facts.Login, []facts.Question{q("file", "/", "exists")})
		if left, _ := os.ReadDir(m.dir); err == nil || len(left) > 0 {
			t.Errorf("%s: %v, and %v is left", sh, err, left)
		}
	}
}

// TestBatches: many questions of the same kind take few processes on the machine, and have
// the same answers as single ones.
func TestBatches(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/proc/sys and stat are those of Linux")
	}
	for _, sh := range shells(t) {
		t.Run(filepath.Base(sh), func(t *testing.T) { testBatches(t, sh) })
	}
}

func testBatches(t *testing.T, sh string) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	program := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho "+name+" \"$1\" >>'"+log+"'\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"stat", "grep"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skip(err)
		}
		program(name, "exec "+path+` "$@"`)
	}
	// As systemd 252 has it: is-enabled ends at a unit that is not there.
	program("systemctl", `verb=$1
shift 2
status=3
for unit; do
	case $verb:$unit in
	is-active:up*) echo active; status=0 ;;
	is-active:again) echo reloading; status=0 ;;
	is-active:*) echo inactive ;;
	is-enabled:up*) echo enabled; status=0 ;;
	is-enabled:again) echo alias; status=0 ;;
	is-enabled:masked) echo masked; status=1 ;;
	is-enabled:strange) echo "strange is strange" >&2; echo enabled; exit 0 ;;
	is-enabled:*) echo "Failed to get unit file state for $unit: No such file or directory" >&2; exit 1 ;;
	esac
done
exit $status
`)
	m := &local{t: t, shell: sh, env: append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))}
	cost := func() map[string]int {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		count := map[string]int{}
		for line := range strings.Lines(string(text)) {
			name, verb, _ := strings.Cut(strings.TrimSpace(line), " ")
			if name == "systemctl" {
				name = verb
			}
			count[name]++
		}
		if err := os.Remove(log); err != nil {
			t.Fatal(err)
		}
		return count
	}

	var questions []facts.Question
	var want []facts.Answer
	expect := func(question facts.Question, answer facts.Answer) {
		questions, want = append(questions, question), append(want, answer)
	}
	for i := range 20 {
		path := filepath.Join(dir, fmt.Sprintf("it's %d\n$(touch run) \"", i))
		switch i {
		case 7:
			expect(q("file", path, "exists"), facts.Answer{"exists": is(false)})
			continue
		case 9:
			if err := os.Symlink("here", path); err != nil {
				t.Fatal(err)
			}
			expect(q("file", path, "exists", "linked-to"), facts.Answer{"exists": is(true), "linked-to": is("here")})
			continue
		}
		if err := os.WriteFile(path, make([]byte, i), 0o600); err != nil {
			t.Fatal(err)
		}
		expect(q("file", path, "exists", "size", "mode"), facts.Answer{"exists": is(true), "size": is(int64(i)), "mode": is("0600")})
	}
	for i := range 5 {
		expect(q("service", fmt.Sprintf("up%d", i), "enabled", "running"), facts.Answer{"enabled": is(true), "running": is(true)})
	}
	expect(q("service", "gone", "enabled", "running"), facts.Answer{"enabled": is(false), "running": is(false)})
	expect(q("service", "again", "enabled", "running"), facts.Answer{"enabled": is(true), "running": is(true)})
	expect(q("service", "masked", "enabled", "running"), facts.Answer{"enabled": is(false), "running": is(false)})
	for i := range 5 {
		expect(q("service", fmt.Sprintf("up again %d", i), "enabled", "running"), facts.Answer{"enabled": is(true), "running": is(true)})
	}
	for _, name := range []string{"kernel.ostype", "net.ipv4.ip_local_port_range", "vm.swappiness", "kernel.random.boot_id"} {
		text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
		if err != nil {
			t.Skip(err)
		}
		expect(q("kernel-param", name, "value"), facts.Answer{"value": is(strings.TrimSpace(string(text)))})
	}
	expect(q("kernel-param", "kernel.none", "value"), facts.Answer{"value": {Err: "head: cannot open '/proc/sys/kernel/none' for reading: No such file or directory"}})
	same(t, "answers", learn(t, m, questions...), want)
	same(t, "programs", cost(), map[string]int{"stat": 3, "grep": 1, "is-active": 2, "is-enabled": 4})

	// Units with unexpected output are queried one by one.
	same(t, "strange", learn(t, m, q("service", "up1", "enabled"), q("service", "strange", "enabled"), q("service", "up2", "enabled")),
		[]facts.Answer{{"enabled": is(true)}, {"enabled": is(true)}, {"enabled": is(true)}})
	if n := cost()["is-enabled"]; n != 4 {
		t.Errorf("asked %d times", n)
	}
}

// A process that a command has left behind in another session may continue writing, or
// truncate the output; neither affects the answers.
func TestWritersThatStay(t *testing.T) {
	for what, does := range map[string]string{"writes": "echo more", "empties": "echo; echo; echo; echo; : >/proc/self/fd/1"} {
		t.Run(what, func(t *testing.T) {
			goOn := filepath.Join(t.TempDir(), "go on")
			if err := os.WriteFile(goOn, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			var questions []facts.Question
			for range 8 {
				questions = append(questions, q("command", "echo first; setsid timeout 30 sh -c 'while [ -e \""+goOn+"\" ]; do "+does+"; done' & sleep 0.1", "exit-status", "stdout"))
			}
			for i, a := range learn(t, &local{t: t}, append(questions, q("command", "echo last", "stdout"))...) {
				if i < len(questions) {
					same(t, "a command", a["exit-status"], is(int64(0)))
				} else {
					same(t, "the last", a["stdout"], is(facts.Text("last\n")))
				}
			}
		})
	}
}

// Output that was truncated for lack of space on the machine is not judged as complete,
// whichever side notices.
func TestFullDisk(t *testing.T) {
	if out, err := exec.Command("unshare", "-rm", "mount", "-t", "tmpfs", "none", "/dev/shm").CombinedOutput(); err != nil {
		t.Skipf("no file system can be mounted here: %v: %s", err, out)
	}
	for range 20 {
		other := exec.Command("sleep", "60")
		if err := other.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = other.Process.Kill()
			_ = other.Wait()
		})
	}
	for what, c := range map[string]struct {
		size     string
		question facts.Question
	}{
		"an output and its copy": {"128k", q("command", "head -c 80000 /dev/zero; echo secret", "exit-status", "stdout")},
		"an output":              {"64k", q("command", "head -c 80000 /dev/zero; echo secret", "exit-status", "stdout")},
		"what a shell prints":    {"4k", q("process", "nosuch", "running")},
	} {
		t.Run(what, func(t *testing.T) {
			sh := filepath.Join(t.TempDir(), "sh")
			if err := os.WriteFile(sh, []byte("#!/bin/sh\nexec unshare -rm sh -c 'mount -t tmpfs -o size="+c.size+" none /dev/shm && exec sh \"$@\"' sh \"$@\"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			got, err := facts.Learn(t.Context(), &local{t: t, shell: sh}, facts.Login, []facts.Question{c.question})
			if err == nil || !strings.Contains(err.Error(), "has no room for the facts") {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// Others on the machine see no command, which may hold a password.
func TestCommandsAreNoArguments(t *testing.T) {
	const word = "correct-horse"
	got := learn(t, &local{t: t}, q("command", "x="+word+`; for f in /proc/[0-9]*/cmdline; do tr '\0' ' ' <$f 2>/dev/null; done | grep -c "[c]orrect-hors[e]"`, "stdout", "exit-status"))
	same(t, "command lines with the word", got[0]["stdout"], is(facts.Text("0\n")))
}

// dnsServer answers over TCP with its records of a type.
func dnsServer(t *testing.T, code dnsmessage.RCode, bodies map[dnsmessage.Type][]dnsmessage.ResourceBody) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var size [2]byte
				if _, err := io.ReadFull(conn, size[:]); err != nil {
					return
				}
				query := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(conn, query); err != nil {
					return
				}
				var m dnsmessage.Message
				if err := m.Unpack(query); err != nil {
					t.Error(err)
					return
				}
				m.Response, m.RCode = true, code
				asked := m.Questions[0]
				if !strings.HasPrefix(asked.Name.String(), "nosuch") {
					for _, b := range bodies[asked.Type] {
						m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: asked.Name, Type: asked.Type, Class: dnsmessage.ClassINET}, Body: b})
					}
				}
				out, err := m.AppendPack(make([]byte, 2))
				if err != nil {
					t.Error(err)
				}
				binary.BigEndian.PutUint16(out, uint16(len(out)-2))
				_, _ = conn.Write(out)
			}()
		}
	}()
	return ln.Addr().String()
}

func TestDNSServer(t *testing.T) {
	name := dnsmessage.MustNewName("mail.example.com.")
	server := dnsServer(t, dnsmessage.RCodeSuccess, map[dnsmessage.Type][]dnsmessage.ResourceBody{
		dnsmessage.TypeA:     {&dnsmessage.AResource{A: [4]byte{192, 0, 2, 7}}},
		dnsmessage.TypeAAAA:  {&dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::7").As16()}},
		dnsmessage.TypeMX:    {&dnsmessage.MXResource{Pref: 10, MX: name}},
		dnsmessage.TypeNS:    {&dnsmessage.NSResource{NS: name}},
		dnsmessage.TypeCNAME: {&dnsmessage.CNAMEResource{CNAME: name}},
		dnsmessage.TypePTR:   {&dnsmessage.PTRResource{PTR: name}},
		dnsmessage.TypeSRV:   {&dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 443, Target: name}},
		dnsmessage.TypeTXT:   {&dnsmessage.TXTResource{TXT: []string{"Hello DNS", "b"}}},
		257:                  {&dnsmessage.UnknownResource{Type: 257, Data: []byte("\x00\x05issueca.example")}},
		44:                   {&dnsmessage.UnknownResource{Type: 44, Data: []byte("\x01\x02\xab\xcd")}},
	})
	refusing := dnsServer(t, dnsmessage.RCodeServerFailure, nil)
	ask := func(key, server string) facts.Question {
		return facts.Question{Kind: "dns", Key: key, Attributes: []string{"resolvable", "addrs"}, Options: map[string]string{"server": server, "timeout": "20000"}}
	}
	want := map[string][]string{
		"example.com": {"192.0.2.7", "2001:db8::7"}, "A:example.com": {"192.0.2.7"}, "aaaa:example.com": {"2001:db8::7"}, "MX:example.com": {"10 mail.example.com."},
		"NS:example.com.": {"mail.example.com."}, "CNAME:example.com": {"mail.example.com."}, "PTR:192.0.2.7": {"mail.example.com."}, "PTR:2001:db8::7": {"mail.example.com."},
		"SRV:_https._tcp.example.com": {"1 2 443 mail.example.com."}, "TXT:example.com": {"Hello DNS", "b"}, "CAA:example.com": {"0 issue ca.example"}, "SSHFP:example.com": {"1 2 ABCD"},
	}
	var questions []facts.Question
	keys := slices.Sorted(maps.Keys(want))
	for _, key := range keys {
		questions = append(questions, ask(key, server))
	}
	questions = append(questions, ask("MX:nosuch.example.com", server), ask("MX:example.com", refusing), ask("HINFO:example.com", server), ask("MX:example.com", ""), ask("MX:"+strings.Repeat("a", 300), server))
	got := learn(t, &forwarding{local: &local{t: t}}, questions...)
	for i, key := range keys {
		same(t, key, got[i], facts.Answer{"resolvable": is(true), "addrs": is(want[key])})
	}
	rest := got[len(keys):]
	same(t, "no such name", rest[0]["resolvable"], is(false))
	for i, why := range []string{"the server refuses: ServerFailure", "records of the type HINFO cannot be asked for", "set server", "is no name"} {
		if f := rest[i+1]["resolvable"]; !strings.Contains(f.Err, why) {
			t.Errorf("got %v, want %q", f, why)
		}
	}
}

// Certificates are read on the machine, even if bake makes the connection.
func TestClientCertificates(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strconv.Itoa(len(r.TLS.PeerCertificates)))
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	pair := srv.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	ask := func(options ...string) facts.Question {
		o := map[string]string{}
		for i := 0; i < len(options); i += 2 {
			o[options[i]] = options[i+1]
		}
		return facts.Question{Kind: "http", Key: srv.URL, Attributes: []string{"status", "body"}, Options: o}
	}
	questions := []facts.Question{
		ask("ca-file", cert, "cert-file", cert, "key-file", key),
		ask("ca-file", cert),
		ask("cert-file", cert, "key-file", key),
		ask("ca-file", cert, "cert-file", cert),
		ask("ca-file", key, "cert-file", cert, "key-file", key),
		ask("ca-file", filepath.Join(dir, "nosuch"), "cert-file", cert, "key-file", key),
	}
	for name, m := range map[string]communicator.Communicator{"forwarded": &forwarding{local: &local{t: t}}, "not forwarded": &local{t: t}} {
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath("curl"); err != nil && name != "forwarded" {
				t.Skip("no curl here")
			}
			got := learn(t, m, questions...)
			same(t, "with a certificate", got[0], facts.Answer{"status": is(int64(200)), "body": is(facts.Text("1"))})
			for i := range questions[1:] {
				if f := got[i+1]["status"]; f.Err == "" {
					t.Errorf("question %d: %v", i+1, f)
				}
			}
		})
	}
}

// A connection from an address of the machine's own is made there.
func TestLocalAddress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("127.0.0.2 is an address of Linux's loopback alone")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	from := make(chan string, 1)
	go func() {
		if conn, err := ln.Accept(); err == nil {
			host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
			from <- host
			conn.Close()
		}
	}()
	ask := func(address, local string) facts.Question {
		return facts.Question{Kind: "addr", Key: address, Attributes: []string{"reachable"}, Options: map[string]string{"local-address": local, "timeout": "20000"}}
	}
	got := learn(t, &forwarding{local: &local{t: t}}, ask(ln.Addr().String(), "127.0.0.2"))
	if strings.Contains(got[0]["reachable"].Err, "neither nc nor python3") {
		t.Skip(got[0]["reachable"].Err)
	}
	same(t, "reachable", got[0]["reachable"], is(true))
	if host := <-from; host != "127.0.0.2" {
		t.Errorf("it comes from %s", host)
	}
	got = learn(t, &forwarding{local: &local{t: t}}, ask(ln.Addr().String(), "192.0.2.1"))
	same(t, "an address that is not there", got[0]["reachable"], is(false))
}

func TestNetwork(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		default:
			user, pass, _ := r.BasicAuth()
			body, _ := io.ReadAll(r.Body)
			w.Header().Add("X-Two", "b")
			w.Header().Add("X-Two", "a")
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, strings.Join([]string{r.Method, r.Header.Get("X-Asked"), user, pass, string(body)}, " "))
		}
	}))
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	const closed = "127.0.0.1:1" // a port that no other program is given
	http := func(path string, options map[string]string) facts.Question {
		return facts.Question{Kind: "http", Key: srv.URL + path, Attributes: []string{"status", "headers", "body"}, Options: options}
	}
	questions := []facts.Question{
		http("/", map[string]string{"method": "post", "request-headers": "X-Asked: \"it\\\n", "request-body": "a=\"b\"", "username": "u", "password": "p'"}),
		http("/moved", nil),
		http("/moved", map[string]string{"no-follow-redirects": "true"}),
		http("/slow", map[string]string{"timeout": "300"}),
		{Kind: "http", Key: "http://" + closed, Attributes: []string{"status"}},
		{Kind: "http", Key: "gopher://x", Attributes: []string{"status"}},
		{Kind: "http", Key: srv.URL, Attributes: []string{"status"}, Options: map[string]string{"ca-file": "/x"}},
		{Kind: "addr", Key: "tcp://" + addr, Attributes: []string{"reachable"}, Options: map[string]string{"timeout": "20000"}}, q("addr", closed, "reachable"), q("addr", "udp://"+closed, "reachable"), q("addr", "no port", "reachable"),
	}
	tests := []struct {
		name   string
		m      communicator.Communicator
		trips  int
		direct bool
	}{
		{"forwarded", &forwarding{local: &local{t: t}}, 0, true},
		{"refused", &forwarding{local: &local{t: t}, refuse: communicator.ErrNoForwarding}, 1, false},
		{"not forwarded", &local{t: t}, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := exec.LookPath("curl"); err != nil && !tt.direct {
				t.Skip("no curl here")
			}
			got := learn(t, tt.m, questions...)
			same(t, "status", got[0]["status"], is(int64(418)))
			same(t, "body", got[0]["body"], is(facts.Text("POST \"it\\ u p' a=\"b\"")))
			if h, _ := got[0]["headers"].Value.(facts.Text); !strings.Contains(string(h), "\nX-Two: a\nX-Two: b") {
				t.Errorf("headers %q", h)
			}
			same(t, "followed", got[1]["status"], is(int64(418)))
			same(t, "not followed", got[2]["status"], is(int64(302)))
			for i := 3; i <= 6; i++ {
				if f := got[i]["status"]; f.Err == "" || f.Value != nil {
					t.Errorf("question %d: %v", i, f)
				}
			}
			same(t, "an address", got[7]["reachable"], is(true))
			same(t, "a closed port", got[8]["reachable"], is(false))
			same(t, "udp", got[9]["reachable"], is(true))
			if got[10]["reachable"].Err == "" {
				t.Error("no port is no error")
			}
		})
	}
}
