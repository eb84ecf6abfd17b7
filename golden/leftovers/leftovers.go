// Package leftovers finds files that a build leaves on its machine and that must not be in
// an image, and removes those that are safe to remove.
package leftovers

import (
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"bake/builder"
	"bake/communicator"
	"bake/golden/asroot"
	"bake/golden/findings"
	"bake/internal/cloudinit"
	"bake/internal/prose"
	"bake/internal/shellquote"
)

//go:embed search.sh
var search string

//go:embed remove.sh
var remove string

// settled is a shell fragment that closes the gate while cloud-init runs. It must precede
// the search for files that cloud-init may create.
const settled = cloudinit.Busy + "if busy; then say found cloud-init /run/cloud-init; fi\n"

// Plan defines what to search for, and what may stay.
type Plan struct {
	Allow   []string // paths on the machine that may stay, with everything below them
	Secrets []string // texts that no file may contain
}

// kind is a kind of leftover.
type kind struct {
	name, title string
	severity    findings.Severity
	fix         string // for what is not removed
}

func kinds() []kind {
	return []kind{
		{"authorized-keys", "No key of the build, or of anybody who is not allowed, is let in", findings.Critical, "remove the keys, or allow the file"},
		{"private-keys", "No private keys", findings.Critical, "delete the file, or allow it"},
		{"credentials", "No credentials of clouds and services", findings.Critical, "delete the file, or allow it"},
		{"secrets", "No sensitive values of the template", findings.Critical, "have the provisioners delete the file or leave the value out, or allow the file"},
		{"cloud-init", "cloud-init has done its work", findings.High, "it could add removed keys again: see what it is waiting for with cloud-init status --long, or allow /run/cloud-init"},
		{"host-keys", "No SSH host keys", findings.High, "nothing makes new ones at the first start: enable cloud-init, or a service that runs ssh-keygen -A"},
		{"machine-id", "No machine ID", findings.High, "empty /etc/machine-id"},
		{"instance-data", "No instance data of cloud-init", findings.High, "delete it"},
		{"histories", "No shell histories", findings.Medium, "delete it"},
		{"scripts", "No temporary scripts", findings.Medium, "delete it"},
		{"random-seed", "No random seed", findings.Low, "delete it"},
		{"caches", "No package caches", findings.Low, "delete it"},
	}
}

// line is something that was found.
type line struct{ word, kind, path string }

// Remove searches the machine of a build for leftovers, just before the machine becomes an
// image. If it cannot remove some of them, it removes nothing, so that the machine can be
// inspected as it is. The report lists what was found and what was removed.
func (p Plan) Remove(ctx context.Context, m builder.Machine) (findings.Report, error) {
	report := findings.Report{Name: "leftovers", Tool: "bake:leftovers", Started: time.Now()}
	found, err := p.search(ctx, m, login(m), "DRY=1\n"+remove)
	if err != nil {
		return report, err
	}
	if len(found) == 0 {
		if found, err = p.run(ctx, m, login(m), "DRY=\n"+remove); err != nil {
			return report, err
		}
		found = without(found, "removed")
	}
	report.Findings = judge(found, kinds())
	return report, nil
}

// Search searches a machine that was launched from the image, to which bake has logged
// in with another key. Files that each machine creates for itself do not count.
func (p Plan) Search(ctx context.Context, m builder.Machine) (findings.Report, error) {
	report := findings.Report{Name: "leftovers", Tool: "bake:leftovers", Started: time.Now()}
	found, err := p.search(ctx, m, login(m), "")
	if err == nil {
		report.Findings = judge(found, kinds()[:4])
	}
	return report, err
}

// login returns the key that bake has logged in with, in base64; empty if it is not bake's.
func login(m builder.Machine) string {
	if fields := strings.Fields(m.Data["SSHPublicKey"].Text); len(fields) > 1 && strings.HasPrefix(fields[1], "AAAA") {
		return fields[1]
	}
	return "(none)"
}

// hostKeys is shell code that determines whether the first boot of the image creates
// host keys.
const hostKeys = `makes_host_keys() {
	if command -v cloud-init >/dev/null && [ ! -e /etc/cloud/cloud-init.disabled ]; then return 0; fi
	for f in /usr/lib/systemd/system/sshd-keygen* /lib/systemd/system/sshd-keygen* /etc/systemd/system/sshd-keygen* /etc/init.d/sshd; do
		if [ -e "$f" ]; then return 0; fi
	done
	return 1
}
`

// search returns the leftovers that close the gate. more is an additional script. Leftovers
// that are removed automatically do not close the gate.
func (p Plan) search(ctx context.Context, m builder.Machine, key, more string) ([]line, error) {
	found, err := p.run(ctx, m, key, `if ! makes_host_keys; then for f in /etc/ssh/ssh_host_*_key; do if [ -e "$f" ]; then say found host-keys "$f"; fi; done; fi
`+more)
	if err != nil {
		return nil, err
	}
	secret, err := p.secrets(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("looking for sensitive values: %w", err)
	}
	found = without(append(found, secret...), "goes")
	return slices.DeleteFunc(found, func(l line) bool { return l.word == "goes" || p.allows(l.path) }), nil
}

// without drops findings for the files that the lines with the word name.
func without(found []line, word string) []line {
	var gone []string
	for _, l := range found {
		if l.word == word {
			gone = append(gone, l.path)
		}
	}
	return slices.DeleteFunc(found, func(l line) bool { return l.word == "found" && within(gone, l.path) })
}

func (p Plan) allows(file string) bool { return within(p.Allow, file) }

// within reports whether a file is one of the paths, or below one.
func within(paths []string, file string) bool {
	return slices.ContainsFunc(paths, func(a string) bool {
		a = path.Clean(a)
		return file == a || strings.HasPrefix(file, strings.TrimSuffix(a, "/")+"/")
	})
}

// run runs the search and the additional script more.
func (p Plan) run(ctx context.Context, m builder.Machine, key, more string) ([]line, error) {
	var cases strings.Builder
	for _, a := range p.Allow {
		quoted := shellquote.Join(path.Clean(a))
		fmt.Fprintf(&cases, "%s|%s/*) return 0;; ", quoted, quoted)
	}
	script := "KEYS=" + shellquote.Join(key) + "\nallowed() { case $1 in " + cases.String() + "esac; return 1; }\n" + hostKeys + settled + search + more
	said, err := asroot.Run(ctx, m, script)
	if err != nil {
		return nil, err
	}
	var found []line
	for _, text := range said {
		word, rest, _ := strings.Cut(text, " ")
		kind, file, ok := strings.Cut(rest, " ")
		if ok && !(word == "found" && p.allows(file)) {
			found = append(found, line{word, kind, file})
		}
	}
	return found, nil
}

// places are the directories whose files are searched for sensitive values.
const places = "/etc /root /home /opt /srv /tmp /var /usr/local /boot"

// secrets returns the files that hold a sensitive value, also in base64. The values are
// sent on the standard input of grep: they are in no file and no list of processes.
func (p Plan) secrets(ctx context.Context, m builder.Machine) ([]line, error) {
	patterns := patterns(p.Secrets)
	if len(patterns) == 0 {
		return nil, nil
	}
	const (
		grep    = "grep -rslF -f - " + places + " 2>&1; echo status $?" // other output of sudo is ignored
		command = `sh -c 'if [ "$(id -u)" = 0 ]; then exec sh -c "$0"; fi; exec sudo -n sh -c "$0"' '` + grep + `'`
	)
	out, errOut := communicator.Head{Max: 64 << 10}, communicator.Head{Max: 4 << 10}
	st, err := m.Run(ctx, communicator.Command{Line: command, Stdin: strings.NewReader(strings.Join(patterns, "\n") + "\n"), Stdout: &out, Stderr: &errOut})
	switch {
	case err != nil:
		return nil, err
	case out.Cut():
		return nil, errors.New("too many files hold one")
	}
	found, err := holders(out.String())
	if err != nil {
		err = fmt.Errorf("%w (exit status %d): %s", err, st.Code, prose.Excerpt(errOut.String()))
	}
	return found, err
}

// holders returns the files that grep has listed. The last line is grep's exit status: 1 if
// nothing was found, and 2 if something could not be read, such as a missing directory.
func holders(said string) (found []line, err error) {
	text := strings.TrimRight(said, "\r\n")
	last := strings.LastIndexByte(text, '\n') + 1
	status, ended := strings.CutPrefix(text[last:], "status ")
	complaint := ""
	for l := range strings.Lines(text[:last]) {
		if l = strings.TrimRight(l, "\r\n"); strings.HasPrefix(l, "/") {
			found = append(found, line{"found", "secrets", l})
		} else if strings.HasPrefix(l, "grep: ") { // and not a start-up file of the login shell
			complaint += l + " "
		}
	}
	switch {
	case !ended:
		return nil, errors.New("grep did not get to its end")
	case status == "0", status == "1", status == "2" && complaint == "":
		return found, nil
	}
	return nil, fmt.Errorf("grep: status %s: %s", prose.Excerpt(status), prose.Excerpt(complaint))
}

// Shortest is the minimum length of a secret that is searched for: shorter ones occur in
// files by chance.
const Shortest = 8

// patterns returns the search patterns for secrets: their lines, and the same text in
// base64 at any offset, in hexadecimal digits, in a URL and in JSON.
func patterns(secrets []string) (all []string) {
	for _, s := range secrets {
		for text := range strings.Lines(s) {
			if text = strings.TrimSpace(text); len(text) < Shortest || strings.HasPrefix(text, "-----") {
				continue
			}
			all = append(all, text, url.QueryEscape(text), url.PathEscape(text), fmt.Sprintf("%x", text), fmt.Sprintf("%X", text))
			all = append(all, inJSON(text)...)
			for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				for before := range 3 {
					code := e.EncodeToString([]byte(strings.Repeat("x", before) + text))
					code = code[(before*8+5)/6 : (before+len(text))*8/6]
					all = append(all, code)
					all = append(all, pieces(code)...)
				}
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// inJSON returns the two forms of a text in a JSON string: some programs escape characters
// that are special in HTML.
func inJSON(text string) (all []string) {
	for _, html := range []bool{false, true} {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(html)
		if err := enc.Encode(text); err == nil {
			all = append(all, strings.TrimSuffix(b.String()[1:], "\"\n"))
		}
	}
	return all
}

// pieces returns parts of the base64 of a value. At least one of them stays intact if the
// base64 is broken into lines of 64 or more characters, as most programs do. Values
// shorter than a piece of 16 characters may occur in files by chance.
func pieces(code string) []string {
	middle := len(code) / 2
	n := min(middle, 32)
	if n < 16 {
		return nil
	}
	return []string{code[middle-n : middle], code[middle : middle+n]}
}

// shown is the maximum number of paths of a kind that are listed.
const shown = 10

// judge makes a finding for each kind.
func judge(found []line, kinds []kind) (all []findings.Finding) {
	for _, k := range kinds {
		f := findings.Finding{ID: "leftovers-" + k.name, Title: k.title, Severity: k.severity, Result: findings.Pass}
		var bad, gone []string
		for _, l := range found {
			switch {
			case l.kind != k.name:
			case l.word == "removed":
				gone = append(gone, l.path)
			default:
				bad = append(bad, l.path)
			}
		}
		switch {
		case len(bad) > 0:
			f.Result, f.Evidence, f.Fix = findings.Fail, list(bad), k.fix
		case len(gone) > 0:
			f.Result, f.Evidence = findings.Fixed, "removed "+list(gone)
		}
		all = append(all, f)
	}
	return all
}

func list(paths []string) string {
	n := len(paths)
	text := prose.Excerpt(strings.Join(paths[:min(n, shown)], ", "))
	if n > shown {
		text += fmt.Sprintf(" and %d more", n-shown)
	}
	return text
}
