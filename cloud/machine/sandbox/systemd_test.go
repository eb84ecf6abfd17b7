package sandbox

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What an image says of a unit holds, and what anything adds to it.
func TestChangesUnit(t *testing.T) {
	for path, want := range map[string]bool{
		"/etc/systemd/system/cloud-init.service": true, "/etc/systemd/system/cloud-init.service.d": true,
		"/usr/local/lib/systemd/system/cloud-init.service": true, "/usr/lib/systemd/system/cloud-init.service.d": true,
		"/etc/systemd/system/service.d": true, "/etc/systemd/system/cloud-.service.d": true,
		"/usr/lib/systemd/system/cloud-init.service": false, "/etc/systemd/system/cron.service.d": false,
		"/etc/systemd/system/cloud-init-.service.d": false,
	} {
		if got := changesUnit("cloud-init.service", func(have string) bool { return have == path }); got != want {
			t.Errorf("with %s: %t", path, got)
		}
	}
}

// Additions to units come before those of the image.
func TestAdditionsAreFirst(t *testing.T) {
	units := t.TempDir()
	if err := (&bootSpec{}).hastenLogin(units); err != nil {
		t.Fatal(err)
	}
	for unit, want := range map[string]bool{"cron.service": true, "ssh.service": !changesUnit("ssh.service", exists)} {
		_, err := os.Stat(filepath.Join(units, unit+".d", "00-bake.conf"))
		if (err == nil) != want || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", unit, err)
		}
	}
}

// The journal's move to the disk and the record of the boot wait until the first login had the processors;
// cron does not, as the last stage of cloud-init waits for that. A machine whose sleep takes no fraction of a
// second has no failed unit.
func TestSettled(t *testing.T) {
	units := t.TempDir()
	if err := (&bootSpec{}).hastenLogin(units); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{
		"cron.service.d/00-bake.conf": false, "systemd-journal-flush.service": true, "systemd-update-utmp.service": true,
	} {
		text, err := os.ReadFile(filepath.Join(units, file))
		if errors.Is(err, fs.ErrNotExist) && !findsUnit(filepath.Base(file)) && want {
			continue // the host, whose units these are, has none
		}
		if err != nil || strings.Contains(string(text), "After="+settled) != want {
			t.Errorf("%s: %q, %v", file, text, err)
		}
	}
	text := readText(filepath.Join(units, "multi-user.target.wants", settled))
	if !strings.Contains(text, "After=ssh.service sshd.service") || !strings.Contains(text, "DefaultDependencies=no\n") || !strings.Contains(text, "ExecStart=-/") {
		t.Errorf("%s: %q", settled, text)
	}
}

// Only what a unit sets is reset.
func TestResets(t *testing.T) {
	resets := []string{"PrivateTmp=no", "ProtectHome=no", "ReadWritePaths="}
	for unit, want := range map[string]string{
		"[Unit]\nDescription=PrivateTmp=\n[Service]\nProtectHome=yes\nReadWritePaths=/etc\n": "[Service]\nProtectHome=no\nReadWritePaths=\n",
		"[Service]\n#PrivateTmp=yes\nExecStart=/bin/true\n":                                  "",
		"": "",
	} {
		if got := resetsOf(unit, resets); got != want {
			t.Errorf("of %q: %q", unit, got)
		}
	}
}

// What cloud-init's units run is run by one process, and nothing else is.
func TestStages(t *testing.T) {
	for unit, want := range map[string]string{
		"[Service]\nExecStart=/usr/bin/cloud-init init --local\nRemainAfterExit=yes\n":                         "[Service]\nExecStart=\nExecStart=/usr/bin/python3 -s /x init --local\n",
		"[Service]\nExecStart=/bin/true\n":                                                                     "",
		"[Service]\nExecStart=/usr/bin/cloud-init init\nExecStart=/usr/bin/cloud-init clean\n":                 "",
		"[Unit]\nNice=no setting\n[Service]\n# Nice=5\nKillMode=process\nExecStart=/usr/bin/cloud-init init\n": "[Service]\nExecStart=\nExecStart=/usr/bin/python3 -s /x init\n",
		"[Service]\nExecStart=/usr/bin/cloud-init init\nLimitNOFILE=99\n":                                      "",
		"[Service]\nPrivateTmp=yes\nExecStart=/usr/bin/cloud-init init\n":                                      "",
		"[Service]\nExecStart=\nExecStart=/usr/bin/cloud-init \\\n  init\n":                                    "[Service]\nExecStart=\nExecStart=/usr/bin/python3 -s /x  init\n",
		"[Service]\nPrivate\\\nTmp = yes\nExecStart=/usr/bin/cloud-init init\n":                                "",
		"[Service]\nExecStart=/usr/bin/cloud-init init \\\n\nPrivateTmp=yes\n":                                 "",
		"[Service]\nExecStart=/usr/bin/cloud-init init \\\n":                                                   "[Service]\nExecStart=\nExecStart=/usr/bin/python3 -s /x init\n",
		"": "",
	} {
		if got := stageOf(unit, "/usr/bin/python3 -s /x"); got != want {
			t.Errorf("%q: %q", unit, got)
		}
	}
	for program, want := range map[string]string{
		"#! /usr/bin/python3 -s\nimport sys\nfrom cloudinit.cmd.main import main\nsys.exit(main())\n":                   "/usr/bin/python3 -s",
		"#!/usr/bin/python3\n    sys.exit(load_entry_point('cloud-init==22.4.2', 'console_scripts', 'cloud-init')())\n": "/usr/bin/python3",
		"#!/usr/bin/python3\nimport wrapper\n": "", "#!/bin/sh\n": "", "": "", "\x7fELF": "",
	} {
		if got := interpreter(program); got != want {
			t.Errorf("%q: %q", program, got)
		}
	}
}

// stagedMain stands for cloud-init: it tells which process it is a copy of, and ends with the
// status that it is called with, or with a signal.
const stagedMain = `import os, signal, sys, time

def stop(*_):
    open("stopped", "w").close()
    sys.exit(9)

def main():
    if sys.argv[1] == "wait":
        signal.signal(signal.SIGTERM, stop)
        open("began", "w").close()
        time.sleep(60)
    print(os.getppid(), os.environ["OF"], *sys.argv)
    sys.exit(int(sys.argv[1]))
`

// staged is the program that runs the stages of what stands for cloud-init, outside of a machine.
type staged struct {
	t           *testing.T
	python, dir string
	program     string
}

func newStaged(t *testing.T) *staged {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	// Control groups are those of a machine.
	program := strings.Replace(string(stages), "return \"/sys/fs/cgroup\"", "return \"/dev/null\" #", 1)
	program = strings.Replace(program, "PATIENCE = 120", "PATIENCE = 60", 1)
	program = strings.Replace(program, "/run/bake/cloud-init.socket", "socket", 1)
	s := &staged{t, python, t.TempDir(), program}
	s.write("cloudinit/__init__.py", "")
	s.write("cloudinit/cmd/__init__.py", "")
	s.write("cloudinit/cmd/main.py", stagedMain)
	s.write("stages", program)
	return s
}

func (s *staged) path(name string) string { return filepath.Join(s.dir, name) }

func (s *staged) write(name, text string) {
	s.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(s.path(name)), 0o755), os.WriteFile(s.path(name), []byte(text), 0o644)); err != nil {
		s.t.Fatal(err)
	}
}

// call is a call of the program, with the variable OF.
func (s *staged) call(of string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.t.Context(), s.python, append([]string{"-S", "stages"}, args...)...)
	cmd.Dir, cmd.Env = s.dir, []string{"OF=" + of, "PYTHONPATH=" + s.dir, "PYTHONDONTWRITEBYTECODE=1"}
	return cmd
}

// output runs a call. The process has the files of the first one, and so no end of a pipe would come.
func (s *staged) output(cmd *exec.Cmd) (string, error) {
	f, err := os.Create(s.path("output"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	return readText(f.Name()), err
}

func (s *staged) await(name string) {
	s.t.Helper()
	for began := time.Now(); !exists(s.path(name)); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			s.t.Fatalf("%s does not come", name)
		}
	}
}

// Each call has its own files, environment and status of one process, which outlives calls that
// end early, and ends what they have begun.
func TestStagesProcess(t *testing.T) {
	s := newStaged(t)
	// It may be loaded before; who comes too late to load it leaves it to the other.
	loader := s.call("loader", "load")
	if err := loader.Start(); err != nil {
		t.Fatal(err)
	}
	s.await("socket")
	if late, err := s.output(s.call("late", "load")); err != nil || late != "" {
		t.Errorf("%q, %v", late, err)
	}
	first, err := s.output(s.call("first", "0", "--local"))
	process, rest, _ := strings.Cut(first, " ")
	if process != strconv.Itoa(loader.Process.Pid) {
		t.Errorf("the first stage is a copy of %s, not of %d", process, loader.Process.Pid)
	}
	if err != nil || rest != "first /usr/bin/cloud-init 0 --local\n" {
		t.Fatalf("%q, %v", first, err)
	}

	stopped := s.call("second", "wait")
	if err := stopped.Start(); err != nil {
		t.Fatal(err)
	}
	s.await("began")
	if err := stopped.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := stopped.Wait(); err == nil {
		t.Error("a call that was ended succeeded")
	}
	s.await("stopped")
	conn, err := net.Dial("unixpacket", s.path("socket"))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()

	last, err := s.output(s.call("third", "3", "--mode=final"))
	var status *exec.ExitError
	if !errors.As(err, &status) || status.ExitCode() != 3 || last != process+" third /usr/bin/cloud-init 3 --mode=final\n" {
		t.Errorf("%q, %v; the first was a copy of %s", last, err, process)
	}
	if err := loader.Wait(); err != nil {
		t.Error("the process that loaded cloud-init: ", err)
	}
	// Without one the first call loads it, and so after one that has died.
	if again, err := s.output(s.call("again", "0", "--mode=final")); err != nil || !strings.HasSuffix(again, " again /usr/bin/cloud-init 0 --mode=final\n") {
		t.Errorf("%q, %v", again, err)
	}
}

// preparedMain stands for a cloud-init whose stages read configuration, run modules and ask for what does not
// change: each of these leaves a line with its name and the process that did it. The first stage waits until the
// process that loaded it has done all of them.
const preparedMain = `import importlib, os, sys, time
from cloudinit import util
import yaml

def main():
    if sys.argv[1] == "first":
        while "util.lsb_release" not in open("done").read():
            time.sleep(0.01)
    for name in "one", "two":
        importlib.import_module("cloudinit.config.cc_" + name)
    try:
        importlib.import_module("cloudinit.config.cc_broken")
    except ValueError as e:
        print("broken:", e)
    util.is_container()
    util.lsb_release(target=None)
    config = util.read_conf_with_confd("/etc/cloud/cloud.cfg")
    print(sys.argv[1], sorted(config))
    config["changed by"] = sys.argv[1]
    yaml.load(open("cfg"), Loader=None)
`

// What each stage would do for itself is done once, by the process that they are copies of, and no stage sees
// what another has changed. What fails there fails in the stage.
func TestStagesPrepared(t *testing.T) {
	s := newStaged(t)
	s.write("done", "")
	s.write("note.py", "import os\ndef note(what):\n    with open('done', 'a') as f: f.write(what + ' ' + str(os.getpid()) + '\\n')\n")
	s.write("cfg", `{"cloud_init_modules": ["one", "broken"], "cloud_config_modules": [["apt-configure", "always"]], "cloud_final_modules": ["leaves", "two", "missing"]}`)
	s.write("yaml.py", "import json, note\ndef load(stream, Loader):\n    note.note('yaml.load')\n    return json.loads(stream if isinstance(stream, str) else stream.read())\n")
	s.write("cloudinit/util.py", `from functools import lru_cache
import note, yaml

def read_conf_with_confd(path):
    return yaml.load(open("cfg").read(), Loader=None)

@lru_cache()
def is_container():
    note.note("util.is_container")

@lru_cache()
def lsb_release(target=None):
    note.note("util.lsb_release")
`)
	s.write("cloudinit/sources/__init__.py", "")
	s.write("cloudinit/sources/DataSourceEc2.py", "import note\nnote.note('DataSourceEc2')\n")
	s.write("cloudinit/config/__init__.py", "")
	for _, name := range []string{"one", "two", "apt_configure"} {
		s.write("cloudinit/config/cc_"+name+".py", "import note\nnote.note('cc_"+name+"')\n")
	}
	s.write("cloudinit/config/cc_broken.py", "raise ValueError('as ever')\n")
	s.write("cloudinit/config/cc_leaves.py", "raise SystemExit(3)\n")
	s.write("cloudinit/cmd/main.py", preparedMain)
	loader := s.call("loader", "load")
	if err := loader.Start(); err != nil {
		t.Fatal(err)
	}
	s.await("socket")
	for _, call := range [][]string{{"first", "--mode=init"}, {"second", "--mode=final"}} {
		got, err := s.output(s.call(call[0], call...))
		if want := "broken: as ever\n" + call[0] + " ['cloud_config_modules', 'cloud_final_modules', 'cloud_init_modules']\n"; err != nil || got != want {
			t.Errorf("%s: %q, %v", call[0], got, err)
		}
	}
	if err := loader.Wait(); err != nil {
		t.Error(err)
	}
	var others []string
	for line := range strings.Lines(readText(s.path("done"))) {
		if what, pid, _ := strings.Cut(strings.TrimSpace(line), " "); pid != strconv.Itoa(loader.Process.Pid) {
			others = append(others, what)
		}
	}
	// The first stage does all; for the second one a file that it reads is left, as that is not text.
	const want = "cc_one cc_two util.is_container util.lsb_release yaml.load yaml.load" + " yaml.load"
	if got := strings.Join(others, " "); got != want {
		t.Errorf("the stages did for themselves: %s\n%s", got, readText(s.path("done")))
	}
}

// Of a call that loads cloud-init and one that is a stage, whichever is the faster is the process for both,
// wherever the other one was meanwhile.
func TestStagesLoadedOnce(t *testing.T) {
	s := newStaged(t)
	for _, slow := range []string{"listener.listen()  #", "os.link(own, PATH)"} {
		os.Remove(s.path("socket")) // of a process that has ended
		before, after, found := strings.Cut(s.program, slow)
		if !found {
			t.Fatalf("there is no %q", slow)
		}
		indent := before[strings.LastIndex(before, "\n")+1:]
		s.write("slow", before+"open('began-slow', 'w'); import time; time.sleep(1)\n"+indent+slow+after)
		late := s.call("late", "load")
		late.Args[2] = "slow"
		if err := late.Start(); err != nil {
			t.Fatal(err)
		}
		s.await("began-slow")
		early, err := s.output(s.call("early", "0", "--local"))
		if err != nil {
			t.Fatalf("before %s: %q, %v", slow, early, err)
		}
		last, err := s.output(s.call("last", "0", "--mode=final"))
		if err != nil || strings.Fields(last)[0] != strings.Fields(early)[0] {
			t.Errorf("before %s: %q, %v; the first was %q", slow, last, err, early)
		}
		stuck := time.AfterFunc(30*time.Second, func() { _ = late.Process.Kill() })
		if err := late.Wait(); err != nil {
			t.Errorf("before %s: two processes have loaded it: %v", slow, err)
		}
		stuck.Stop()
		os.Remove(s.path("began-slow"))
	}
}
