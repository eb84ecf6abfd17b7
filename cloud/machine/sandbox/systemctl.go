package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	programPath   = "/run/bake/program" // this program's file, in machines
	systemctlPath = "/usr/bin/systemctl"
	realSystemctl = "/run/bake/systemctl.real" // the image's own, which can enable and disable units
)

// installSystemctl puts this program in place of the image's systemctl, which does not work without
// systemd. The image's file is not changed.
func (b *bootSpec) installSystemctl() error {
	if !exists(systemctlPath) {
		return nil
	}
	// Packages' scripts start services only if this directory exists.
	if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
		return err
	}
	if err := bind(systemctlPath, realSystemctl); err != nil {
		return err
	}
	if err := unix.Mount(programPath, systemctlPath, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind systemctl: %w", err)
	}
	return nil
}

// systemctl is one call of the command.
type systemctl struct {
	args       []string // all arguments, for the image's own systemctl
	verb       string
	units      []string
	now, quiet bool
	value      bool
	properties []string
	signal     string
	whom       string   // which processes of a unit get a signal
	states     []string // list only units in these states
	types      []string // list only units of these types
	out        io.Writer
}

// Exit codes of systemctl(1).
const (
	exitFailure   = 1
	exitInactive  = 3
	exitNoSuch    = 5
	statusUnknown = 4
)

// systemctlMain is the main function of systemctl in machines with the builtin init. Its exit codes
// are those of systemd's.
func systemctlMain(name string, args []string) int {
	c := systemctl{args: args, out: os.Stdout}
	switch name {
	case "systemctl":
	case "reboot", "poweroff", "halt":
		return haltMain(name, args)
	case "shutdown":
		return shutdownMain(args)
	case "runlevel":
		fmt.Fprintln(c.out, "N 5") // the output of systemd on a running machine
		return 0
	case "telinit", "init":
		return telinitMain(name, args)
	default:
		fmt.Fprintf(os.Stderr, "%s: not available: this machine runs without systemd\n", name)
		return exitFailure
	}
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if name, value, taken := withValue(args[i:]); taken > 0 {
			c.option(name, value)
			i += taken - 1
			continue
		}
		switch {
		case arg == "--now":
			c.now = true
		case arg == "--version" || arg == "--help" || arg == "-h":
			return c.real()
		case arg == "-q" || arg == "--quiet":
			c.quiet = true
		case arg == "--value":
			c.value = true
		case arg == "--failed":
			c.states = append(c.states, "failed")
		case strings.HasPrefix(arg, "-"):
		case c.verb == "":
			c.verb = arg
		default:
			c.units = append(c.units, arg)
		}
	}
	return c.run()
}

// valueOptions are the options that take a value. A short option maps to its long name.
var valueOptions = map[string]string{
	"-p": "--property", "-s": "--signal", "-t": "--type", "-n": "--lines",
	"--property": "", "--state": "", "--signal": "", "--type": "", "--lines": "", "--kill-who": "", "--kill-whom": "",
}

// withValue parses an option with a value at the start of args: --name value, --name=value, -n
// value or -nvalue. taken is the number of arguments, 0 if the first is no such option or the value
// is missing.
func withValue(args []string) (name, value string, taken int) {
	name, value, attached := strings.Cut(args[0], "=")
	if len(args[0]) > 1 && args[0][0] == '-' && args[0][1] != '-' {
		name, value, attached = args[0][:2], args[0][2:], len(args[0]) > 2
	}
	long, known := valueOptions[name]
	switch {
	case !known || !attached && len(args) == 1:
		return "", "", 0
	case long != "":
		name = long
	}
	if attached {
		return name, value, 1
	}
	return name, args[1], 2
}

func (c *systemctl) option(name, value string) {
	switch name {
	case "--property":
		c.properties = append(c.properties, strings.Split(value, ",")...)
	case "--state":
		c.states = append(c.states, strings.Split(value, ",")...)
	case "--type":
		c.types = append(c.types, strings.Split(value, ",")...)
	case "--signal":
		c.signal = value
	case "--kill-who", "--kill-whom":
		c.whom = value
	}
}

func (c *systemctl) run() int {
	stop := func(u *unit) error { return u.end() }
	restart := func(u *unit) error { return u.restart() }
	ifRunning := func(do func(*unit) error) func(*unit) error {
		return func(u *unit) error {
			if !u.running() {
				return nil
			}
			return do(u)
		}
	}
	switch c.verb {
	case "start":
		return c.each(begin)
	case "stop":
		return c.each(stop)
	case "restart", "force-reload":
		return c.each(restart)
	case "try-restart", "condrestart":
		return c.each(ifRunning(restart))
	case "reload":
		return c.each(reload)
	case "reload-or-restart":
		return c.each(func(u *unit) error {
			if !u.running() || len(u.values["Service.ExecReload"]) == 0 {
				return restart(u)
			}
			return reload(u)
		})
	case "reload-or-try-restart", "try-reload-or-restart":
		return c.each(ifRunning(restart))
	case "kill":
		return c.kill()
	case "is-active", "is-failed":
		return c.active()
	case "status":
		return c.status()
	case "show":
		return c.show()
	case "enable", "disable", "mask", "unmask", "reenable", "preset", "is-enabled", "list-unit-files", "get-default", "set-default", "cat", "link", "revert":
		code := c.real()
		if code != 0 || !c.now {
			return code
		}
		if c.verb == "disable" || c.verb == "mask" {
			return c.each(stop)
		}
		return c.each(begin)
	case "", "list-units":
		return c.list()
	case "is-system-running":
		return c.systemState()
	case "reset-failed":
		return c.resetFailed()
	case "daemon-reload", "daemon-reexec", "set-environment", "import-environment":
		return 0 // there is no daemon whose configuration could be outdated
	case "reboot", "poweroff", "halt":
		return powerCommand(c.verb)
	}
	fmt.Fprintf(os.Stderr, "systemctl: this machine runs without systemd, where there is no %q\n", c.verb)
	return exitFailure
}

// kill sends a signal to the processes of units, or only to their main ones.
func (c *systemctl) kill() int {
	signal, err := unix.SIGTERM, error(nil)
	if c.signal != "" {
		signal, err = signalNamed(c.signal)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "Failed to parse signal string %s.\n", c.signal)
		return exitFailure
	}
	of := (*unit).processes
	switch c.whom {
	case "", "all":
	case "main":
		of = func(u *unit) []int {
			return slices.DeleteFunc([]int{u.mainPID()}, func(pid int) bool { return pid == 0 })
		}
	default:
		fmt.Fprintf(os.Stderr, "systemctl: this machine runs without systemd, where --kill-whom is all or main, not %q\n", c.whom)
		return exitFailure
	}
	return c.each(func(u *unit) error {
		signalEach(of(u), signal)
		return nil
	})
}

// signalNamed returns the signal with a number or a name, with or without SIG.
func signalNamed(name string) (syscall.Signal, error) {
	const last = 64 // SIGRTMAX
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= last {
		return syscall.Signal(n), nil
	}
	if s := unix.SignalNum("SIG" + strings.TrimPrefix(name, "SIG")); s != 0 {
		return s, nil
	}
	return 0, fmt.Errorf("no signal %q", name)
}

// each calls do for every unit and returns the worst exit code.
func (c *systemctl) each(do func(*unit) error) int {
	code := 0
	for _, name := range c.units {
		u, err := loadUnit(name)
		if err == nil {
			err = do(u)
		}
		switch {
		case err == nil:
		case errors.Is(err, errNoUnit):
			fmt.Fprintf(os.Stderr, "Failed to %s %s: Unit %s not found.\n", c.verb, name, name)
			code = exitNoSuch
		default:
			fmt.Fprintf(os.Stderr, "Failed to %s %s: %v\n", c.verb, name, err)
			code = max(code, exitFailure)
		}
	}
	return code
}

func begin(u *unit) error {
	if !strings.HasSuffix(u.name, ".service") {
		fmt.Fprintf(os.Stderr, "systemctl: %s is not started: this machine runs without systemd and has services only\n", u.name)
		return nil
	}
	return u.begin()
}

func reload(u *unit) error {
	lines := u.values["Service.ExecReload"]
	if len(lines) == 0 {
		return fmt.Errorf("job type reload is not applicable for unit %s", u.name)
	}
	for _, line := range lines {
		cmd, mayFail, err := u.command(line, u.mainPID())
		if err != nil {
			return err
		}
		if err := cmd.Run(); err != nil && !mayFail {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return nil
}

// state returns systemd's names for the unit's state and substate.
func state(u *unit) (active, sub string) {
	if u.running() {
		return "active", "running"
	}
	if _, failed := u.failed(); failed {
		return "failed", "failed"
	}
	return "inactive", "dead"
}

func (c *systemctl) active() int {
	wanted := map[string]string{"is-active": "active", "is-failed": "failed"}[c.verb]
	code := exitInactive
	if c.verb == "is-failed" {
		code = exitFailure
	}
	for _, name := range c.units {
		now := "inactive"
		if u, err := loadUnit(name); err == nil {
			now, _ = state(u)
		}
		if now == wanted {
			code = 0
		}
		if !c.quiet {
			fmt.Fprintln(c.out, now)
		}
	}
	return code
}

func (c *systemctl) status() int {
	code := 0
	for _, name := range c.units {
		u, err := loadUnit(name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "Unit %s could not be found.\n", name)
			code = statusUnknown
			continue
		}
		active, sub := state(u)
		now := fmt.Sprintf("%s (%s)", active, sub)
		if f, failed := u.failed(); failed && active == "failed" {
			now = fmt.Sprintf("failed (Result: %s)", f.result)
		}
		if active != "active" {
			code = exitInactive
		}
		fmt.Fprintf(c.out, "● %s - %s\n     Loaded: loaded (%s)\n     Active: %s\n", u.name, u.get("Unit.Description"), u.path, now)
		if pid := u.mainPID(); pid != 0 {
			fmt.Fprintf(c.out, "   Main PID: %d\n", pid)
		}
	}
	return code
}

// list prints the services that run or have failed, or those of them that are in a requested state.
func (c *systemctl) list() int {
	names, err := knownUnits()
	if err != nil {
		fmt.Fprintln(os.Stderr, "systemctl:", err)
		return exitFailure
	}
	for _, name := range names {
		load := "loaded"
		u, err := loadUnit(name)
		if err != nil {
			u, load = &unit{name: name}, "not-found"
		}
		active, sub := state(u)
		if !c.names(u.name) || active == "inactive" || len(c.states) > 0 && !slices.Contains(c.states, active) && !slices.Contains(c.states, sub) {
			continue
		}
		fmt.Fprintf(c.out, "%s %s %s %s %s\n", u.name, load, active, sub, u.get("Unit.Description"))
	}
	return 0
}

// names reports whether a unit matches the requested patterns and types.
func (c *systemctl) names(name string) bool {
	matches := func(pattern string) bool {
		ok, _ := path.Match(fullName(pattern), name) // a bad pattern matches nothing
		return ok
	}
	return (len(c.units) == 0 || slices.ContainsFunc(c.units, matches)) &&
		(len(c.types) == 0 || slices.Contains(c.types, strings.TrimPrefix(path.Ext(name), ".")))
}

// knownUnits returns the names of the services that may be running or have failed.
func knownUnits() ([]string, error) {
	entries, err := os.ReadDir(unitState)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	names, err := failedUnits()
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(sshUnits, func(name string) bool { return findUnit(name) != "" }); i >= 0 {
		names = append(names, sshUnits[i]) // the other name is an alias
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// systemState prints whether any unit has failed.
func (c *systemctl) systemState() int {
	now, code := "running", 0
	if names, err := failedUnits(); err != nil || len(names) > 0 {
		now, code = "degraded", exitFailure
	}
	if !c.quiet {
		fmt.Fprintln(c.out, now)
	}
	return code
}

// resetFailed clears the failed state of the given units, or of all.
func (c *systemctl) resetFailed() int {
	names := c.units
	if len(names) == 0 {
		var err error
		if names, err = failedUnits(); err != nil {
			fmt.Fprintln(os.Stderr, "systemctl:", err)
			return exitFailure
		}
	}
	code := 0
	for _, name := range names {
		u, err := loadUnit(name)
		if err != nil {
			u = &unit{name: fullName(name)}
			if _, failed := u.failed(); !failed {
				fmt.Fprintf(os.Stderr, "Failed to reset failed state of unit %s: Unit %s not loaded.\n", u.name, u.name)
				code = exitFailure
				continue
			}
		}
		if err := u.forget(); err != nil {
			fmt.Fprintf(os.Stderr, "Failed to reset failed state of unit %s: %v\n", name, err)
			code = exitFailure
		}
	}
	return code
}

func (c *systemctl) show() int {
	for _, name := range c.units {
		u, err := loadUnit(name)
		load := "loaded"
		switch {
		case errors.Is(err, errMaskedUnit):
			load = "masked"
		case err != nil:
			load = "not-found"
		}
		if u == nil {
			u = &unit{name: name}
		}
		now, sub := state(u)
		last, failed := u.failed()
		if !failed {
			last.result = "success"
		}
		for _, p := range [][2]string{
			{"Id", u.name}, {"LoadState", load}, {"ActiveState", now}, {"SubState", sub}, {"MainPID", fmt.Sprint(u.mainPID())},
			{"FragmentPath", u.path}, {"Description", u.get("Unit.Description")}, {"NeedDaemonReload", "no"},
			{"Result", last.result}, {"ExecMainStatus", fmt.Sprint(last.status)},
		} {
			switch {
			case len(c.properties) > 0 && !slices.Contains(c.properties, p[0]):
			case c.value:
				fmt.Fprintln(c.out, p[1])
			default:
				fmt.Fprintf(c.out, "%s=%s\n", p[0], p[1])
			}
		}
	}
	return 0
}

// real runs the image's own systemctl, which can do the offline operations on unit files.
func (c *systemctl) real() int {
	cmd := exec.Command(realSystemctl, append([]string{"--root=/"}, slices.DeleteFunc(slices.Clone(c.args), func(a string) bool { return a == "--now" })...)...)
	cmd.Env = append(os.Environ(), "_SKIP_SYSV_INSTALL=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	code, err := exitCode(cmd.Run())
	if err != nil {
		fmt.Fprintln(os.Stderr, "systemctl:", err)
	}
	return code
}

// haltMain is the main function of reboot(8), poweroff(8) and halt(8).
func haltMain(name string, args []string) int {
	how := name
	for _, arg := range args {
		switch arg {
		case "--reboot":
			how = "reboot"
		case "-p", "--poweroff":
			how = "poweroff"
		case "--halt":
			how = "halt"
		case "-w", "--wtmp-only":
			return 0 // there is no login record to write to
		case "--help":
			fmt.Printf("%s [OPTIONS...]\n", name)
			return 0
		}
	}
	return powerCommand(how)
}

// telinitMain is the main function of telinit(8). There are no runlevels to change to.
func telinitMain(name string, args []string) int {
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, "-") })
	switch {
	case slices.Contains(args, "0"):
		return powerCommand("poweroff")
	case slices.Contains(args, "6"):
		return powerCommand("reboot")
	case slices.ContainsFunc(args, func(a string) bool { return slices.Contains([]string{"q", "Q", "u", "U", "5"}, a) }):
		return 0 // a reload is not needed, and 5 is the current runlevel
	case len(args) == 0:
		fmt.Fprintf(os.Stderr, "%s: required argument missing.\n", name)
	default:
		fmt.Fprintf(os.Stderr, "%s: this machine runs without systemd and has no other runlevel\n", name)
	}
	return exitFailure
}

// shutdownMain is the main function of shutdown(8).
func shutdownMain(args []string) int {
	how, when := "poweroff", ""
	for _, arg := range args {
		switch {
		case arg == "-r" || arg == "--reboot":
			how = "reboot"
		case arg == "-c":
			return cancelShutdown()
		case arg == "-k", arg == "--show":
			return 0 // only a warning to users, or nothing to do
		case strings.HasPrefix(arg, "-"):
		case when == "":
			when = arg
		}
	}
	delay, err := shutdownDelay(when, time.Now())
	if err != nil {
		fmt.Fprintf(os.Stderr, "Failed to parse time specification: %s\n", when)
		return exitFailure
	}
	if delay == 0 {
		return powerCommand(how)
	}
	cancelShutdown()
	later := self(roleShutdown, how, delay.String())
	later.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = later.Start()
	if err == nil {
		err = os.WriteFile(shutdownFile, []byte(strconv.Itoa(later.Process.Pid)), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shutdown:", err)
		return exitFailure
	}
	fmt.Fprintf(os.Stderr, "%s scheduled for %s, use 'shutdown -c' to cancel.\n",
		map[string]string{"reboot": "Reboot", "poweroff": "Shutdown"}[how], time.Now().Add(delay).Format("Mon 2006-01-02 15:04:05 MST"))
	return 0
}

// shutdownFile holds the process id of a process that waits to shut down.
const shutdownFile = "/run/bake/shutdown"

// shutdownDelay parses the times of shutdown(8): now, +MINUTES, MINUTES and HH:MM. The default is a
// minute.
func shutdownDelay(when string, now time.Time) (time.Duration, error) {
	switch when {
	case "now":
		return 0, nil
	case "":
		return time.Minute, nil
	}
	if at, err := time.ParseInLocation("15:04", when, now.Location()); err == nil {
		next := time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), 0, 0, now.Location())
		if !next.After(now) {
			next = next.AddDate(0, 0, 1)
		}
		return next.Sub(now), nil
	}
	minutes, err := strconv.ParseUint(strings.TrimPrefix(when, "+"), 10, 31)
	return time.Duration(minutes) * time.Minute, err
}

// cancelShutdown ends the process that waits to shut down, if there is one.
func cancelShutdown() int {
	text, err := os.ReadFile(shutdownFile)
	if err != nil {
		return 0
	}
	if pid, err := strconv.Atoi(string(text)); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
	}
	os.Remove(shutdownFile)
	return 0
}

// shutdownLater waits for the delay and then shuts down.
func shutdownLater(how, delay string) error {
	d, err := time.ParseDuration(delay)
	if err != nil {
		return err
	}
	time.Sleep(d)
	if powerCommand(how) != 0 {
		return errors.New("the machine does not shut down")
	}
	return nil
}

// powerCommand asks the builtin init to end the machine.
func powerCommand(how string) int {
	s := powerOffSignal
	if how == "reboot" {
		s = rebootSignal
	}
	if err := unix.Kill(1, s); err != nil {
		fmt.Fprintln(os.Stderr, how+":", err)
		return exitFailure
	}
	return 0
}
