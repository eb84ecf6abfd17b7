package facts

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// subjects are all kinds of questions. ask adds the queries of a question to a plan; its
// result reads the replies.
var subjects = []subject{
	{"file", askFile, nil},
	{"package", askPackage, nil},
	{"service", askService, nil},
	{"user", askUser, nil},
	{"group", askGroup, nil},
	{"command", askCommand, []string{"timeout"}},
	{"process", askProcess, nil},
	{"port", askPort, nil},
	{"kernel-param", askKernelParam, nil},
	{"mount", askMount, []string{"timeout"}},
	{"interface", askInterface, nil},
	{"dns", askDNS, []string{"timeout", "server"}},
	{"addr", askAddr, []string{"timeout", "local-address"}},
	{"http", askHTTP, []string{"timeout", "method", "allow-insecure", "no-follow-redirects", "request-headers", "request-body", "username", "password", "proxy", "ca-file", "cert-file", "key-file"}},
}

// subject is what questions of one kind are about.
type subject struct {
	kind    string
	ask     func(*plan, Question) reader
	options []string // of such questions
}

// subject returns what the question is about; it has no ask for an unknown kind.
func (q Question) subject() subject {
	for _, s := range subjects {
		if s.kind == q.Kind {
			return s
		}
	}
	return subject{}
}

func (q Question) asks(attributes ...string) bool {
	return slices.ContainsFunc(attributes, func(a string) bool { return slices.Contains(q.Attributes, a) })
}

// whole parses a text that consists of a number.
func whole(text string) Fact {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return unknown(fmt.Sprintf("the machine returned %.40q, which is not a number", text))
	}
	return known(n)
}

// absent returns the facts of something that does not exist.
func absent(first, why string, others ...string) Answer {
	a := Answer{first: known(false)}
	for _, name := range others {
		a[name] = unknown(why)
	}
	return a
}

func askFile(p *plan, q Question) reader {
	stat := p.one("files", q.Key)
	texts := map[string]int{}
	if q.asks("contents") {
		texts["contents"] = p.probe("p_text", q.Key)
	}
	for _, hash := range []string{"md5", "sha256", "sha512"} {
		if q.asks(hash) {
			texts[hash] = p.probe("p_hash", hash, q.Key)
		}
	}
	return func(r []reply) Answer {
		if why := r[stat].failed(); why != "" {
			if r[stat].lost == "" && strings.HasSuffix(why, ": No such file or directory") {
				return absent("exists", "there is no such file", q.Attributes...).with("exists", known(false))
			}
			return all(unknown(why), q)
		}
		a := statted(string(r[stat].out))
		for name, id := range texts {
			a[name] = fileText(name, r[id])
		}
		return a
	}
}

// with sets a fact.
func (a Answer) with(name string, f Fact) Answer {
	a[name] = f
	return a
}

func fileText(name string, r reply) Fact {
	if why := r.failed(); why != "" {
		return unknown(why)
	}
	if name == "contents" {
		return r.text(r.out)
	}
	sum, _, _ := strings.Cut(string(r.out), " ")
	if sum = strings.TrimPrefix(sum, `\`); !isHex(sum) {
		return unknown(fmt.Sprintf("the machine returned %.40q, which is not a checksum", sum))
	}
	return known(sum)
}

func isHex(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) > 0
}

// filetype returns goss's name for the type in st_mode, or "".
func filetype(mode uint64) string {
	switch mode & 0o170000 {
	case 0o140000:
		return "socket"
	case 0o120000:
		return "symlink"
	case 0o100000:
		return "file"
	case 0o060000:
		return "block-device"
	case 0o040000:
		return "directory"
	case 0o020000:
		return "character-device"
	case 0o010000:
		return "pipe"
	}
	return ""
}

// statted parses the output of p_file.
func statted(out string) Answer {
	f := strings.SplitN(out, "\n", 7)
	if len(f) < 7 {
		return Answer{"exists": unknown(fmt.Sprintf("stat says %.80q", out))}
	}
	a := Answer{"exists": known(true), "uid": whole(f[0]), "gid": whole(f[1]), "size": whole(f[2]), "owner": named(f[4], f[0]), "group": named(f[5], f[1])}
	a["linked-to"] = unknown("it is not a symbolic link")
	mode, err := strconv.ParseUint(f[3], 16, 32)
	kind := filetype(mode)
	if err != nil || kind == "" {
		bad := unknown(fmt.Sprintf("stat says the mode is %.40q", f[3]))
		a["mode"], a["filetype"] = bad, bad
		return a
	}
	a["mode"], a["filetype"] = known(fmt.Sprintf("%04o", mode&0o7777)), known(kind)
	if kind == "symlink" {
		a["linked-to"] = known(f[6])
	}
	return a
}

// named returns the name of an owner, whom stat calls UNKNOWN if there is none.
func named(name, id string) Fact {
	if name == "UNKNOWN" || name == "" {
		return unknown("the number " + id + " has no name")
	}
	return known(name)
}

func askPackage(p *plan, q Question) reader {
	list := p.probe("p_packages")
	return func(r []reply) Answer {
		if why := r[list].failed(); why != "" {
			return all(unknown(why), q)
		}
		if len(r[list].out) > maxText {
			return all(unknown("the list of packages is too long"), q)
		}
		manager, lines, _ := strings.Cut(string(r[list].out), "\n")
		versions := installed(manager, lines, q.Key)
		if len(versions) == 0 {
			return absent("installed", "it is not installed", "versions")
		}
		return Answer{"installed": known(true), "versions": known(versions)}
	}
}

// installed returns the versions of a package in the list of a package manager, which
// names it as the manager's own queries do.
func installed(manager, list, name string) (versions []string) {
	for line := range strings.Lines(list) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		is, version := false, ""
		switch {
		case manager == "dpkg" && len(f) == 4:
			want, arch, hasArch := strings.Cut(name, ":")
			glob, err := path.Match(want, f[0])
			is = err == nil && glob && (!hasArch || arch == f[1]) && (f[3] == "install ok installed" || f[3] == "hold ok installed")
			version = f[2]
		case manager == "rpm" && len(f) == 3:
			_, plain, hasEpoch := strings.Cut(f[2], ":")
			if !hasEpoch {
				plain = f[2]
			}
			number, _, _ := strings.Cut(plain, "-")
			forms := []string{f[0], f[0] + "-" + number, f[0] + "-" + plain, f[0] + "-" + f[2]}
			is = slices.Contains(forms, name) || slices.Contains(forms, strings.TrimSuffix(name, "."+f[1])) && strings.HasSuffix(name, "."+f[1])
			version = f[2]
		case manager == "apk" && len(f) == 1:
			version, is = strings.CutPrefix(f[0], name+"-")
			is = is && version != "" && '0' <= version[0] && version[0] <= '9'
		case manager == "pacman" && len(f) == 1:
			var of string
			of, version, is = strings.Cut(f[0], " ")
			is = is && of == name
		}
		if is {
			versions = append(versions, version)
		}
	}
	return versions
}

func askService(p *plan, q Question) reader {
	if strings.Contains(q.Key, "/") {
		return func([]reply) Answer {
			return Answer{"enabled": known(false), "running": known(false), "runlevels": known([]string{})}
		}
	}
	system := p.short("p_system")
	enabled, running := -1, -1
	if q.asks("enabled", "runlevels") {
		enabled = p.one("enabled", q.Key)
	}
	if q.asks("running") {
		running = p.one("running", q.Key)
	}
	return func(r []reply) Answer {
		a := Answer{}
		systemd := strings.TrimSpace(string(r[system].out)) == "systemd"
		if enabled >= 0 {
			a["enabled"], a["runlevels"] = serviceEnabled(r[enabled], systemd)
		}
		if running >= 0 {
			a["running"] = serviceRunning(r[running], systemd)
		}
		return a
	}
}

func serviceEnabled(r reply, systemd bool) (enabled, runlevels Fact) {
	if systemd {
		return unitState(r), known([]string{})
	}
	if why := r.failed(); why != "" {
		return unknown(why), unknown(why)
	}
	levels := []string{}
	for link := range strings.Lines(string(r.out)) { // /etc/runlevels/LEVEL/NAME, /etc/rcLEVEL.d/SnnNAME
		level := strings.TrimPrefix(path.Base(path.Dir(link)), "rc")
		if level = strings.TrimSuffix(level, ".d"); !slices.Contains(levels, level) {
			levels = append(levels, level)
		}
	}
	return known(len(levels) > 0), known(levels)
}

func serviceRunning(r reply, systemd bool) Fact {
	if systemd {
		return unitState(r)
	}
	if r.lost != "" || r.late || r.status == 127 || r.status == 137 {
		return unknown(r.failed())
	}
	return known(r.status == 0)
}

// unitState interprets the output of systemctl for a unit: an exit status of 0 means yes.
// If it printed no state, and did not report a missing unit, the fact is unknown, because
// systemctl may have failed.
func unitState(r reply) Fact {
	state := strings.TrimSpace(string(r.out))
	switch {
	case r.lost != "" || r.late || r.status == 137:
		return unknown(r.failed())
	case state != "":
		return known(r.status == 0)
	case strings.Contains(string(r.err), "No such file or directory") && !strings.Contains(string(r.err), "bus"),
		strings.Contains(string(r.err), "not found"), strings.Contains(string(r.err), "does not exist"):
		return known(false)
	}
	why := firstLine(r.err)
	if why == "" {
		why = "systemctl says nothing"
	}
	return unknown(why)
}

// lines returns the lines of a file with fields separated by colons.
func lines(text string, fields int) (all [][]string) {
	for line := range strings.Lines(text) {
		if f := strings.Split(strings.TrimRight(line, "\r\n"), ":"); len(f) >= fields {
			all = append(all, f)
		}
	}
	return all
}

func find(all [][]string, name string) []string {
	if i := slices.IndexFunc(all, func(f []string) bool { return f[0] == name }); i >= 0 {
		return all[i]
	}
	return nil
}

func askUser(p *plan, q Question) reader {
	passwd, group := p.probe("p_text", "/etc/passwd"), p.probe("p_text", "/etc/group")
	return func(r []reply) Answer {
		if why := r[passwd].failed(); why != "" {
			return all(unknown(why), q)
		}
		f := find(lines(string(r[passwd].out), 7), q.Key)
		if f == nil {
			return absent("exists", "there is no such user", "uid", "gid", "home", "groups", "shell")
		}
		a := Answer{"exists": known(true), "uid": whole(f[2]), "gid": whole(f[3]), "home": known(f[5]), "shell": known(f[6])}
		if why := r[group].failed(); why != "" {
			return a.with("groups", unknown(why))
		}
		groups := []string{}
		for _, g := range lines(string(r[group].out), 4) {
			if len(g) == 4 && (g[2] == f[3] || slices.Contains(strings.Split(g[3], ","), q.Key)) {
				groups = append(groups, g[0])
			}
		}
		slices.Sort(groups)
		return a.with("groups", known(groups))
	}
}

func askGroup(p *plan, q Question) reader {
	group := p.probe("p_text", "/etc/group")
	return func(r []reply) Answer {
		if why := r[group].failed(); why != "" {
			return all(unknown(why), q)
		}
		f := find(lines(string(r[group].out), 4), q.Key)
		if f == nil {
			return absent("exists", "there is no such group", "gid")
		}
		return Answer{"exists": known(true), "gid": whole(f[2])}
	}
}

func askCommand(p *plan, q Question) reader {
	timeout := q.patience(10 * time.Second)
	id := p.command(q.Key, timeout)
	return func(r []reply) Answer {
		switch got := r[id]; {
		case got.late:
			return all(unknown(fmt.Sprintf("it was ended after %s (timeout)", timeout)), q)
		case got.lost != "" || got.missing:
			return all(unknown(got.failed()), q)
		default:
			return Answer{"exit-status": known(int64(got.status)), "stdout": got.text(got.out), "stderr": got.text(got.err)}
		}
	}
}

func askProcess(p *plan, q Question) reader {
	list := p.probe("p_processes")
	return func(r []reply) Answer {
		if why := r[list].failed(); why != "" {
			return all(unknown(why), q)
		}
		names, whole := processes(string(r[list].out))
		if !names[q.Key] && (!whole || len(r[list].out) > maxText) {
			return all(unknown("not all processes can be seen"), q)
		}
		return Answer{"running": known(names[q.Key])}
	}
}

// processes reads lines of /proc/PID/stat. The first line is that of the process that has
// read them; processes in its session belong to the probe and are left out. init reports
// whether the first process of the machine is listed, which is false where other users'
// processes are hidden.
func processes(out string) (names map[string]bool, init bool) {
	names = map[string]bool{}
	own := ""
	for line := range strings.Lines(out) {
		pid, rest, ok := strings.Cut(line, " (")
		name, _, _ := strings.Cut(rest, ")")
		after := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		if !ok || len(after) < 4 {
			continue
		}
		session := after[3]
		if own == "" {
			own = session
		}
		init = init || pid == "1"
		if session != own || own == "0" {
			names[name] = true
		}
	}
	return names, init
}

func askPort(p *plan, q Question) reader {
	list := p.probe("p_ports")
	want, err := socket(q.Key)
	return func(r []reply) Answer {
		if err != nil {
			return all(unknown(err.Error()), q)
		}
		if why := r[list].failed(); why != "" {
			return all(unknown(why), q)
		}
		ips := listening(string(r[list].out), want)
		if len(ips) == 0 {
			if len(r[list].out) > maxText {
				return all(unknown("the list of ports is too long"), q)
			}
			return absent("listening", "nothing listens there", "ip")
		}
		return Answer{"listening": known(true), "ip": known(ips)}
	}
}

// listening returns the addresses of a port such as tcp:22 from the output of p_ports.
func listening(out, want string) (ips []string) {
	protocol := ""
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) == 1 && slices.Contains([]string{"tcp", "tcp6", "udp", "udp6"}, f[0]) {
			protocol = f[0]
		}
		if len(f) < 4 || strings.HasPrefix(protocol, "tcp") && f[3] != "0A" {
			continue
		}
		addr, port, _ := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		if ip, ok := address(addr); ok && err == nil && fmt.Sprintf("%s:%d", protocol, n) == want {
			ips = append(ips, ip)
		}
	}
	return ips
}

// address reads an address of /proc/net, which is in words of a little-endian machine.
func address(text string) (string, bool) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 4 && len(b) != 16 {
		return "", false
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	ip, _ := netip.AddrFromSlice(b)
	return strings.ToUpper(ip.Unmap().String()), true
}

func askKernelParam(p *plan, q Question) reader {
	name := q.Key
	if dot, slash := strings.IndexByte(name, '.'), strings.IndexByte(name, '/'); slash < 0 || dot >= 0 && dot < slash {
		name = strings.NewReplacer(".", "/", "/", ".").Replace(name)
	}
	if slices.Contains(strings.Split(name, "/"), "..") {
		return func([]reply) Answer { return all(unknown("it is no name of a kernel parameter"), q) }
	}
	id := p.one("parameters", "/proc/sys/"+name)
	return func(r []reply) Answer {
		if why := r[id].failed(); why != "" {
			return all(unknown(why), q)
		}
		return Answer{"value": known(strings.TrimSpace(string(r[id].out)))}
	}
}
