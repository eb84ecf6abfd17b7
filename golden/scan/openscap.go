// Package scan runs external scanners on a machine or on this host, and reads their
// findings.
package scan

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"bake/communicator"
	"bake/golden/asroot"
	"bake/golden/findings"
	"bake/internal/prose"
	"bake/internal/shellquote"
)

//go:embed openscap.sh
var openscap string

// OpenSCAP is a scan with oscap.
type OpenSCAP struct {
	Name      string // of the report
	Content   *Content
	Tailoring *Content // nil: none
	Profile   string
	Stream    string // ID of the data stream; empty: the first
	Timeout   time.Duration
}

// maxWire is the maximum number of bytes that a machine may send.
const maxWire = findings.MaxRead

// Run scans a machine. If necessary, the machine's package manager downloads oscap, which
// is removed afterwards. An error means that the scan was not carried out.
func (o OpenSCAP) Run(ctx context.Context, on communicator.Communicator) (findings.Report, error) {
	report := findings.Report{Name: o.Name, Tool: "openscap", Started: time.Now()}
	script, err := o.script()
	if err != nil {
		return report, err
	}
	ctx, cancel := limited(ctx, o.Timeout)
	defer cancel()
	parts, err := run(ctx, on, script)
	if err != nil {
		return report, err
	}
	results, ok := parts["results"]
	if code, said := parts.status(); !ok || code != 0 && code != 2 { // 2: a rule has failed
		return report, fmt.Errorf("oscap ended with exit status %d: %s", code, prose.Excerpt(said))
	}
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, strings.NewReader(results)))
	if err != nil {
		return report, fmt.Errorf("the results of oscap: %w", err)
	}
	return read(z, findings.XCCDF, report)
}

// read reads a report, and sets its start time.
func read(r io.Reader, format findings.Format, begun findings.Report) (findings.Report, error) {
	report, err := findings.Read(r, format, begun.Name)
	report.Started = begun.Started // by bake's clock
	return report, err
}

// limited returns ctx with a time limit, which its cause mentions.
func limited(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("the scan took longer than %s, its timeout", limit))
}

// run runs a script on a machine as root, and returns the parts of its output.
func run(ctx context.Context, on communicator.Communicator, script string) (said, error) {
	out := communicator.Head{Max: maxWire}
	if err := asroot.Stream(ctx, on, script, &out); err != nil {
		return nil, err
	}
	if out.Cut() {
		return nil, fmt.Errorf("the machine says more than %d MB", maxWire>>20)
	}
	if out.String() == "" {
		return nil, errors.New("there is no machine to inspect, or it returns no output: the communicator of the build must be ssh")
	}
	parts := split(out.String())
	if _, whole := parts["end"]; !whole {
		return nil, errors.New("the scan did not get to its end")
	}
	return parts, nil
}

func (o OpenSCAP) script() (string, error) {
	content, err := o.Content.packed()
	if err != nil {
		return "", err
	}
	tailoring, tailored := "", ""
	if o.Tailoring != nil {
		if tailoring, err = o.Tailoring.packed(); err != nil {
			return "", err
		}
		tailored = "yes"
	}
	file := func(name, packed string) string {
		return name + "() { cat <<'BAKE_END'\n" + packed + "\nBAKE_END\n}\n"
	}
	return "PROFILE=" + shellquote.Join(o.Profile) + "\nSTREAM=" + shellquote.Join(o.Stream) + "\nTAILORED=" + tailored + "\n" + file("content", content) + file("tailoring", tailoring) + openscap, nil
}

// packed returns the file, compressed and encoded as lines of text.
func (c *Content) packed() (string, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(c.data); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	text := base64.StdEncoding.EncodeToString(b.Bytes())
	var lines strings.Builder
	for len(text) > 76 {
		lines.WriteString(text[:76] + "\n")
		text = text[76:]
	}
	return lines.String() + text, nil
}

// begin is printed before each part of a script's output.
const begin = "\n\x01bake "

// split returns the parts of a script's output, by the word on the first line of each.
func split(text string) said {
	parts := said{}
	for _, part := range strings.Split("\n"+text, begin)[1:] {
		name, text, _ := strings.Cut(part, "\n")
		parts[strings.TrimRight(name, "\r")] = text
	}
	return parts
}

// said holds the parts of a script's output.
type said map[string]string

// status returns the exit status of the scanner and the end of its messages; -1 if the
// machine does not report one.
func (s said) status() (code int, why string) {
	text, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(s["status"])) // line breaks do not count
	last := string(text)
	if i := strings.LastIndex(strings.TrimSpace(last), "\n"); i >= 0 {
		why, last = last[:i], last[i:]
	}
	code, err := strconv.Atoi(strings.TrimSpace(last))
	if err != nil {
		return -1, why
	}
	return code, why
}
