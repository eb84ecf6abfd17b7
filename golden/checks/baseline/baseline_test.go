package baseline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"bake/golden/findings"
)

// TestTable: every rule is complete, and every function of the scripts belongs to a rule.
func TestTable(t *testing.T) {
	functions := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^((?:check|fix)_\w+)\(\)`).FindAllStringSubmatch(scripts(), -1) {
		if functions[m[1]] {
			t.Errorf("%s is there twice", m[1])
		}
		functions[m[1]] = true
	}
	id := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	ref := regexp.MustCompile(`^(C \d+(\.\d+)+|R9-\d{6}|U24-\d{6}|R\d+|DS (os|sysctl)-\d{2})$`)
	seen := map[string]bool{}
	for _, r := range table {
		if seen[r.ID] || !id.MatchString(r.ID) {
			t.Errorf("%q is no ID, or there twice", r.ID)
		}
		seen[r.ID] = true
		if r.Title == "" || r.Rationale == "" || r.Fix == "" || strings.HasSuffix(r.Title, ".") || !strings.HasSuffix(r.Rationale, ".") {
			t.Errorf("%s: the texts are not whole", r.ID)
		}
		if !slices.Contains([]findings.Severity{critical, high, medium, low}, r.Severity) || r.Level != 1 && r.Level != 2 {
			t.Errorf("%s is %s and of level %d", r.ID, r.Severity, r.Level)
		}
		for _, number := range r.finding().Refs {
			if !ref.MatchString(number) {
				t.Errorf("%s: %q is no reference", r.ID, number)
			}
		}
		if !functions[function("check", r.ID)] {
			t.Errorf("%s has no check", r.ID)
		}
		if r.automatic() != functions[function("fix", r.ID)] {
			t.Errorf("%s: automatic() is %v", r.ID, r.automatic())
		}
		delete(functions, function("check", r.ID))
		delete(functions, function("fix", r.ID))
	}
	for name := range functions {
		t.Errorf("%s belongs to no rule", name)
	}
	if len(seen) != 110 {
		t.Errorf("there are %d rules", len(seen))
	}
}

func TestSelect(t *testing.T) {
	for words, want := range map[string]string{
		"":                                 "86 86",
		"level1":                           "86 86",
		"level2":                           "110 86",
		"ssh-forwarding,pw-aging":          "2 0",
		"level1,pw-aging":                  "87 86",
		"-service-ports":                   "85 85",
		"level2,-service-ports,-pw-aging":  "108 85",
		"ssh-fowarding":                    `bake:baseline has no rule "ssh-fowarding"; did you mean "ssh-forwarding"?`,
		"-nothing-like-it":                 `bake:baseline has no rule "nothing-like-it"`,
		"account-uid0,-account-uid0":       "no rule of bake:baseline is selected",
		"level3":                           `bake:baseline has no rule "level3"`,
		"ssh-fowarding,pam-nulok,pw-aging": "bake:baseline has no rule \"ssh-fowarding\"; did you mean \"ssh-forwarding\"?\nbake:baseline has no rule \"pam-nulok\"; did you mean \"pam-nullok\"?",
	} {
		s, err := Select(words)
		got := fmt.Sprint(err)
		if err == nil {
			rules, _ := s.rules()
			first := 0
			for _, r := range rules {
				first += 2 - r.Level
			}
			got = fmt.Sprint(len(rules), first)
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", words, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	ids := []string{"a", "b"}
	for name, test := range map[string]struct {
		out  string
		want map[string]answer
		err  string
	}{
		"answers": {
			out:  "Welcome!\n\x01bake a 0\n\x01bake b 1\n\x01bake . one\n\x01bake . two\x1b[31m\xff\n\x01bake end\nBye\n",
			want: map[string]answer{"a": {0, ""}, "b": {1, "one; two\uFFFD[31m\uFFFD"}},
		},
		"over a terminal":      {out: "\x01bake a 0\r\n\x01bake b 3\r\n\x01bake . why\r\n\x01bake end\r\n", want: map[string]answer{"a": {0, ""}, "b": {3, "why"}}},
		"evidence like answer": {out: "\x01bake a 1\n\x01bake . \x01bake b 0\n\x01bake end\n", want: map[string]answer{"a": {1, "\uFFFDbake b 0"}, "b": {-1, "the machine did not answer"}}},
		"evidence of nothing":  {out: "\x01bake . x\n\x01bake a 0\n\x01bake b 0\n\x01bake end\n\x01bake . y\n", want: map[string]answer{"a": {0, ""}, "b": {0, ""}}},
		"cut":                  {out: "\x01bake a 0\n\x01bake b 0\n", err: "ends early"},
		"nothing":              {err: "ends early"},
		"twice":                {out: "\x01bake a 1\n\x01bake a 0\n\x01bake end\n", err: `an invalid response: "a 0"`},
		"unknown rule":         {out: "\x01bake c 0\n", err: `an invalid response: "c 0"`},
		"no status":            {out: "\x01bake a\n", err: `an invalid response: "a"`},
		"long line":            {out: "\x01bake a 1\n\x01bake . " + strings.Repeat("x", 2*maxLine) + "\n\x01bake end\n", err: "a line that does not end"},
		"another system":       {out: "\x01bake unsupported 0\n\x01bake . Alpine Linux v3.20\n", err: "the system of this machine is Alpine Linux v3.20"},
	} {
		got, err := parse(strings.NewReader(test.out), ids)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: got %v, %v, want the error %s", name, got, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(test.want, got, cmp.AllowUnexported(answer{})); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	much, err := parse(strings.NewReader("\x01bake a 1\n"+strings.Repeat("\x01bake . "+strings.Repeat("é", 500)+"\n", 100)+"\x01bake end\n"), ids)
	if n := utf8.RuneCountInString(much["a"].text); err != nil || n != maxEvidence {
		t.Errorf("%d characters are kept: %v", n, err)
	}
}

// fake is a machine with canned answers.
type fake struct {
	state string  // pass, fail, half: what checks say
	login []error // of the first login, and so on
	calls []string
}

func (f *fake) Run(_ context.Context, script string, out io.Writer) error {
	lines := strings.Split(strings.TrimSpace(script), "\n")
	what, ids, _ := strings.Cut(strings.TrimSuffix(lines[len(lines)-2], " </dev/null"), " ")
	f.calls = append(f.calls, strings.TrimSpace(what+" "+ids))
	for id := range strings.FieldsSeq(ids) {
		switch {
		case what == "fix":
			fmt.Fprintf(out, "\x01bake %s 0\n\x01bake . done\n", id)
		case f.state == "pass" || f.state == "half" && id == "ssh-x11":
			fmt.Fprintf(out, "\x01bake %s 0\n", id)
		default:
			fmt.Fprintf(out, "\x01bake %s 1\n\x01bake . bad\n", id)
		}
	}
	if what == "fix" {
		f.state = "half"
	}
	fmt.Fprint(out, "\x01bake end\n")
	return nil
}

func (f *fake) LogIn(context.Context) error {
	f.calls = append(f.calls, "log in")
	if len(f.login) == 0 {
		return nil
	}
	err := f.login[0]
	f.login = f.login[1:]
	return err
}

func TestRemediate(t *testing.T) {
	s := Selection{Only: []string{"ssh-x11", "pam-nullok", "pkg-updates", "account-uid0"}}
	f := &fake{}
	before, err := Check(t.Context(), f, s)
	if err != nil {
		t.Fatal(err)
	}
	after, err := Remediate(t.Context(), f, s, before)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range after.Findings {
		got[r.ID] = string(r.Result) + ": " + r.Evidence
	}
	if d := cmp.Diff(map[string]string{
		"ssh-x11": "fixed: done", "pam-nullok": "fail: bad; the fix did not help: done", "pkg-updates": "fail: bad; the fix did not help: done", "account-uid0": "fail: bad",
	}, got); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
	all := "ssh-x11 pam-nullok account-uid0 pkg-updates"
	if d := cmp.Diff([]string{"check " + all, "log in", "fix pkg-updates pam-nullok ssh-x11", "log in", "check " + all}, f.calls); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}

	// Nothing to do.
	f = &fake{state: "pass"}
	if before, err = Check(t.Context(), f, s); err == nil {
		after, err = Remediate(t.Context(), f, s, before)
	}
	if err != nil || len(f.calls) != 1 || after.Count(findings.Pass) != 4 {
		t.Errorf("%v %v %v", f.calls, after, err)
	}

	refused := errors.New("connection refused")
	for _, test := range []struct {
		login []error
		err   string
		calls []string
	}{
		{[]error{refused}, "nothing of bake:baseline was fixed", []string{"check " + all, "log in"}},
		{[]error{nil, refused}, "logging in fails after the fixes", []string{"check " + all, "log in", "fix pkg-updates pam-nullok ssh-x11", "log in", "undo"}},
	} {
		f = &fake{login: test.login}
		if before, err = Check(t.Context(), f, s); err == nil {
			_, err = Remediate(t.Context(), f, s, before)
		}
		if !errors.Is(err, refused) || !strings.Contains(err.Error(), test.err) {
			t.Errorf("got %v, want %s", err, test.err)
		}
		if d := cmp.Diff(test.calls, f.calls); d != "" {
			t.Errorf("calls (-want +got):\n%s", d)
		}
	}
}

// here runs scripts in a shell of this host, with something before their last lines.
type here struct{ more string }

func (h here) Run(ctx context.Context, script string, out io.Writer) error {
	at := strings.LastIndex(strings.TrimSuffix(script, "\nexit\n"), "\n")
	cmd := exec.CommandContext(ctx, "sh", "-s")
	cmd.Stdin, cmd.Stdout = strings.NewReader(script[:at+1]+h.more+"\n"+script[at+1:]), out
	return cmd.Run()
}

func (here) LogIn(context.Context) error { return nil }

// onLinux skips a test that runs scripts of machines on other systems.
func onLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the scripts are for Linux")
	}
}

// TestOnlyVerdictsPass: a check that ends in any other way is an error.
func TestOnlyVerdictsPass(t *testing.T) {
	onLinux(t)
	system := "learn_system() { family=deb virtual=none; }\n"
	for body, want := range map[string]string{
		"pass":                                    "pass ",
		"fail no good":                            "fail no good",
		"na not here":                             "not applicable not here",
		"error cannot":                            "error cannot",
		"verdict ''":                              "pass ",
		"verdict 'one\ntwo'":                      "fail one; two",
		"true":                                    "error the check ended with status 9 and said nothing",
		"return 0":                                "error the check ended with status 9 and said nothing",
		"exit 7":                                  "error the check ended with status 7 and said nothing",
		"no-such-program; exit $?":                "error NOT FOUND",
		"echo \"$not_set\"; pass":                 "error NOT SET",
		"own_kernel it; fail its own":             "fail its own",
		"virtual=lxc; own_kernel it":              "not applicable it is the host's: this machine has no kernel of its own",
		"virtual=; own_kernel it; pass":           "error systemd-detect-virt does not say whether the kernel is the machine's own",
		"need sh no-such-program; pass":           "error the machine has no no-such-program, which the check needs",
		"verdict \"$(no-such-program | some)\"":   "error NOT FOUND",
		"verdict \"$(echo \"$not_set\" | some)\"": "error NOT SET",
		"cat; pass":                               "pass ", // not the rest of the script
	} {
		report, err := Check(t.Context(), here{system + "check_account_uid0() {\n" + body + "\n}"}, Selection{Only: []string{"account-uid0"}})
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		f := report.Findings[0]
		got := string(f.Result) + " " + f.Evidence
		if strings.HasSuffix(want, "NOT FOUND") && strings.Contains(got, "not found") || strings.HasSuffix(want, "NOT SET") && strings.Contains(got, "not_set") {
			got = string(f.Result) + want[len("error"):]
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", body, got, want)
		}
		waits := len(report.Warnings) == 1 && strings.HasPrefix(report.Warnings[0], "1 of 1 rules of bake:baseline could not be checked")
		if waits != strings.Contains(want, "no kernel of its own") || !waits && report.Warnings != nil {
			t.Errorf("%s: warnings %q", body, report.Warnings)
		}
	}
}

// TestNothingKnown: on a machine where no program works, no rule passes.
func TestNothingKnown(t *testing.T) {
	onLinux(t)
	failing, missing := t.TempDir(), t.TempDir()
	for _, program := range strings.Fields("apt-config apt-get auditctl awk bash cat cloud-init cp curl date dpkg-query env find getenforce head lsmod mkdir modprobe nft " +
		"python3 rpm sed sort ss sshd stat systemctl systemd-analyze tail timeout tr uname update-crypto-policies") {
		if err := os.Symlink("/bin/false", filepath.Join(failing, program)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{failing, missing} {
		for _, family := range []string{"deb", "rpm"} {
			more := "learn_system() { family=" + family + " virtual=none; }\nhave() { :; }\nPATH='" + path + "'\n"
			report, err := Check(t.Context(), here{more}, Selection{Levels: []int{1, 2}})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range report.Findings {
				if f.Result == findings.Pass && f.ID != "boot-cmdline" { // which the shell reads
					t.Errorf("%s: %s passes", family, f.ID)
				}
			}
		}
	}
}

// TestCut: when the session ends early, no background process or file remains.
func TestCut(t *testing.T) {
	onLinux(t)
	aside := []string{"pkg-updates", "file-unowned"}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGTERM} {
		if signal.Ignored(sig) { // as by nohup: then no shell can trap it
			continue
		}
		dir := t.TempDir()
		script := scripts() + `
learn_system() { family=deb virtual=none; }
learn_files() { found=beginend; }
mktemp() { command mktemp '` + dir + `/bake-baseline.XXXXXX'; }
`
		for _, id := range aside {
			script += function("check", id) + `() { sh -c 'echo $$ >"$1.new"; mv "$1.new" "$1"; exec sleep 60' sh '` + filepath.Join(dir, id) + "'; }\n"
		}
		cmd := exec.Command("sh", "-s")
		cmd.Stdin = strings.NewReader(script + "check " + strings.Join(aside, " ") + "\nexit\n")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pids := map[string]int{}
		for deadline := time.Now().Add(30 * time.Second); len(pids) < len(aside) && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			for _, id := range aside {
				text, _ := os.ReadFile(filepath.Join(dir, id))
				if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
					pids[id] = pid
				}
			}
		}
		if len(pids) < len(aside) {
			t.Errorf("of %v, only %v begins", aside, pids)
		}
		cut := time.Now()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || time.Since(cut) > 30*time.Second {
			t.Errorf("%s: the script goes on for %s: %v", sig, time.Since(cut), err)
		}
		for id, pid := range pids {
			if !gone(pid) {
				t.Errorf("%s: %s, which ran aside, goes on", sig, id)
				if p, err := os.FindProcess(pid); err == nil {
					_ = p.Kill()
				}
			}
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "bake-baseline.*")); left != nil {
			t.Errorf("%s: %v stays", sig, left)
		}
	}
}

// TestCutAlone: nothing is wrong with a session that is cut while nothing runs aside.
func TestCutAlone(t *testing.T) {
	onLinux(t)
	cmd := exec.Command("sh", "-s")
	cmd.Stdin = strings.NewReader(scripts() + "learn_system() { family=deb virtual=none; }\nlearn() { kill -TERM $$; }\ncheck boot-cmdline\nexit\n")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || len(out) != 0 {
		t.Errorf("%v, with %q", err, out)
	}
}

// TestCutAtOnce: a file or directory that has just been made when the session ends is deleted too.
func TestCutAtOnce(t *testing.T) {
	onLinux(t)
	for _, line := range []string{"check pkg-updates", "fix boot-cmdline", "(" + function("check", "pkg-updates") + ")"} {
		for _, sh := range []string{"dash", "bash"} { // sh of Debian's family, and of Red Hat's
			if _, err := exec.LookPath(sh); err == nil {
				cutAtOnce(t, sh, line)
			}
		}
	}
}

func cutAtOnce(t *testing.T, sh, line string) {
	dir := t.TempDir()
	cmd := exec.Command(sh, "-s")
	cmd.Stdin = strings.NewReader(scripts() + `
learn_system() { :; }
learn() { :; }
need() { :; }
mktemp() {
	case $1 in
	-d) command mktemp -d '` + dir + `/XXXXXX' ;;
	*) command mktemp '` + dir + `/XXXXXX' ;;
	esac
	read -r _ _ _ shell _ </proc/self/stat
	kill -TERM "$shell"
}
family=deb
` + line + "\n")
	out, err := cmd.CombinedOutput()
	if left, _ := os.ReadDir(dir); err == nil || len(left) > 0 {
		t.Errorf("%s: %s: %v, with %q, leaves %v", sh, line, err, out, left)
	}
}

// gone says whether a process, which may just have been told to end, has ended.
func gone(pid int) bool {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(text), ") Z ") {
			return true
		}
	}
	return false
}

// TestAside: each rule is answered once, even if checks cannot run in the background.
func TestAside(t *testing.T) {
	onLinux(t)
	stubs := "learn_system() { family=deb virtual=none; }\nlearn() { :; }\n"
	for _, r := range table {
		stubs += function("check", r.ID) + "() { fail " + r.ID + "; }\n"
	}
	for what, mktemp := range map[string]string{
		"aside": "mktemp() { command mktemp '" + t.TempDir() + "/bake-baseline.XXXXXX'; }", "no place": "mktemp() { return 1; }",
	} {
		report, err := Check(t.Context(), here{stubs + mktemp}, Selection{Levels: []int{1, 2}}) // a second answer is an error
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if len(report.Findings) != len(table) {
			t.Errorf("%s: %d findings", what, len(report.Findings))
		}
		for _, f := range report.Findings {
			if f.Result != findings.Fail || f.Evidence != f.ID {
				t.Errorf("%s: %s: %s %s", what, f.ID, f.Result, f.Evidence)
			}
		}
	}
}

// TestLearned: facts that the check of a rule needs are collected even if the rule is checked
// alone.
func TestLearned(t *testing.T) {
	onLinux(t)
	bodies := bodies()
	variable := regexp.MustCompile(`\$\{?(\w+)`)
	var used func(name string, seen, variables map[string]bool)
	used = func(name string, seen, variables map[string]bool) {
		if seen[name] || strings.HasPrefix(name, "learn") {
			return
		}
		seen[name] = true
		for _, m := range variable.FindAllStringSubmatch(bodies[name], -1) {
			variables[m[1]] = true
		}
		for _, m := range called.FindAllStringSubmatch(bodies[name], -1) {
			used(m[1], seen, variables)
		}
	}
	script, want := "", []string{}
	for learner, body := range bodies {
		if !strings.HasPrefix(learner, "learn_") || learner == "learn_system" {
			continue
		}
		first, _, _ := strings.Cut(body, "\n")
		sets := regexp.MustCompile(`(\w+)=`).FindAllStringSubmatch(first, -1)
		if learner == "learn_sshd" {
			sets = append(sets, []string{"", "sshd_port"}) // one of many, which rules about services query
		}
		for _, r := range table {
			variables := map[string]bool{}
			used(function("check", r.ID), map[string]bool{}, variables)
			if slices.ContainsFunc(sets, func(m []string) bool { return variables[m[1]] }) {
				script += fmt.Sprintf("(who='%s for %s'; %s %s)\n", learner, r.ID, learner, r.ID)
				want = append(want, learner+" for "+r.ID)
			}
		}
	}
	if len(want) < 40 {
		t.Fatalf("only %v", want)
	}
	out := shell(t, scripts()+`
family=deb virtual=none accounts='login root:/root' accounts_error=''
eval "$(printf 'really_'; cat <<'X'
wanted() {`+bodies["wanted"]+`}
X
)"
wanted() {
	really_wanted "$@" || return 1
	echo "$who"
	exit
}
note() { # by which learn_modes is asked
	echo "$who"
	exit
}
`+script)
	got := strings.Split(strings.TrimSpace(out), "\n")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("what is learned (-needed +learned):\n%s", d)
	}
}

// TestSystems: the family of a machine is read from its os-release, in any notation.
func TestSystems(t *testing.T) {
	onLinux(t)
	for text, want := range map[string]string{
		"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n":        "deb Debian GNU/Linux 12 (bookworm)",
		"PRETTY_NAME='Linux Mint 22'\nID=linuxmint\nID_LIKE='ubuntu debian'": "deb Linux Mint 22",
		"ID=ubuntu": "deb ",
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nPRETTY_NAME=\"Rocky Linux 9.5 = 9\"": "rpm Rocky Linux 9.5 = 9",
		"ID=\"amzn\"":                           "rpm ",
		"PRETTY_NAME=Debian-like\nID=notdebian": "unsupported Debian-like",
		"":                                      "unsupported an unknown one",
	} {
		file := filepath.Join(t.TempDir(), "os-release")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out := shell(t, scripts()+"\nos_release='"+file+"'\nanswer() { echo \"$1 $3\"; }\nlearn_system\necho \"$family $distribution\"\n")
		if got := strings.TrimSuffix(out, "\n"); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// TestLongLists: lists are read only up to a limit, and nothing passes because it is missing
// from a truncated list.
func TestLongLists(t *testing.T) {
	onLinux(t)
	if signal.Ignored(syscall.SIGPIPE) {
		t.Skip("SIGPIPE is ignored")
	}
	dir := t.TempDir()
	more := `learn_system() { family=deb virtual=none; }
login_users() { list='somebody:` + dir + `'; }
find() {
	case "$*" in *-maxdepth\ 0*) echo yes; return ;; *begin*) printf 'begin\0' ;; esac
	i=0
	while [ $i -lt 500 ]; do printf 'W /%0999d\n' $i || exit; i=$((i + 1)); done
	echo >'` + dir + `/whole'
}
`
	report, err := Check(t.Context(), here{more}, Selection{Only: []string{"account-dotfiles", "file-log-mode", "file-system-dirs", "file-unowned", "file-world-writable"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if f.ID == "file-unowned" {
			if f.Result != findings.Error || !strings.Contains(f.Evidence, "more files") {
				t.Errorf("%s: %s %s", f.ID, f.Result, f.Evidence)
			}
		} else if f.Result != findings.Fail || !strings.Contains(f.Evidence, "/000") {
			t.Errorf("%s: %s %s", f.ID, f.Result, f.Evidence)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "whole")); err == nil {
		t.Error("a list is read to its end")
	}
}

// TestHelpers: the helpers with which fixes write are defined once.
func TestHelpers(t *testing.T) {
	onLinux(t)
	dir := t.TempDir()
	script := scripts() + `
cd '` + dir + `' || exit 1
printf '# KEY 1\nKEY\t2 # two\nOTHER 3\n KEY 4\n\n' >defs
settings=$(settings_in defs) settings_error=''; setting defs KEY || echo twice; echo "$v $list" | paste -sd , -; setting defs OTHER; echo "$v"; setting defs NONE; echo "[$v]"
set_key "$PWD/defs" KEY 365 ' '; cat defs; echo .
before=$(stat -c %i defs); set_key "$PWD/defs" KEY 365 ' '; [ "$before" = "$(stat -c %i defs)" ] && echo same
printf '# deny = 3\n' >conf; set_key "$PWD/conf" deny 5 ' = '; settings_in conf
printf 'net.a = 1\n' >own; keep "$PWD/own" 644 '^net\.b *=' 'net.b = 2'; keep "$PWD/own" 644 '^net\.b *=' 'net.b = 3'; cat own
touch f; chmod 4666 f; modes=; at_most 640 "$(id -un)" "nobody_ $(id -gn)" f missing; echo "$bad"
limit 640 "$(id -un)" "$(id -gn)" f; stat -c %a f; bad=; at_most 640 "$(id -un)" "$(id -gn)" f; echo "[$bad]"
modes=f:600:root:x; bad=; at_most 640 root 'y x' f; at_most 640 root any f; echo "[$bad]"; at_most 400 root y f; at_most 600 nobody_ any f; echo "$bad"
weak_and_strong a-cbc,b,3des,c,d-sha1 '*cbc* *des *sha1'; echo $weak: $strong
printf '1\n2\n3\n4\n5\n6\n7\n8\n9\n' | some
ls -A | paste -sd ' ' -
check_x() { sshd_where no-such-key; fail "[$where]"; }; sshd_files='' looked_for=no-such-key where=old; try x; echo "$said"
`
	out := shell(t, "bad=\n"+script)
	text := regexp.MustCompile(`f is 4666 \S+, at most 640 \S+`).ReplaceAllString(out, "f is too open")
	want := "twice\n4 2,4\n3\n[]\n# KEY 1\nKEY 365\nOTHER 3\n\n.\nsame\nconf:deny 5\n# Written by bake:baseline.\nnet.a = 1\nnet.b = 3\nf is too open\n640\n[]\n[]\nf is 600 root:x, at most 400 root:y\nf is 600 root:x, at most 600 nobody_:x\na-cbc 3des d-sha1: b,c\n1, 2, 3, 4, 5, 6, 7, 8\nconf defs f own\n[]\n"
	if d := cmp.Diff(want, text); d != "" {
		t.Errorf("output (-want +got):\n%s", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("\x01bake a 1\n\x01bake . why\n\x01bake end\n")
	f.Fuzz(func(t *testing.T, out string) {
		answers, err := parse(strings.NewReader(out), []string{"a"})
		if err == nil && (len(answers) != 1 || len(answers["a"].text) > 4*maxEvidence) {
			t.Errorf("%v", answers)
		}
	})
}
