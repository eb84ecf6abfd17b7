// Package hcpsbom is the provisioner hcp-sbom: it makes or downloads an SBOM of the
// machine.
package hcpsbom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"bake/builder"
	"bake/communicator"
	"bake/component"
	"bake/config/schema"
	"bake/golden/contents"
	"bake/internal/release"
	"bake/internal/wholefile"
	"bake/provisioner"
	"bake/provisioner/internal/remote"
	"bake/step"
)

// Factory returns the factory of the hcp-sbom provisioner. now is the clock.
func Factory(now func() time.Time) component.Factory[provisioner.Provisioner] {
	return component.Define("hcp-sbom", defaults,
		func(o *Options, src *schema.Source) provisioner.Provisioner { return &provision{o, src, now} })
}

type provision struct {
	*Options
	src *schema.Source
	now func() time.Time
}

// maxWarnings is the maximum number of warnings about files that could not be read.
const maxWarnings = 20

// maxSBOM is the maximum size of a downloaded SBOM.
const maxSBOM = 256 << 20

// Provision implements [provisioner.Provisioner]. A machine that cannot be read, or a
// missing file to download, causes only a warning: the image itself is good. A file
// that is not an SBOM, or that cannot be written here, is an error.
func (p *provision) Provision(ctx context.Context, s *step.Scope, m builder.Machine) error {
	if err := p.checkDestination(); err != nil {
		return err
	}
	r := &run{provision: p, Machine: remote.Machine{Machine: m, Scope: s, Patience: time.Minute}}
	text, count, err := r.document(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		s.Warn(ctx, "There is no SBOM: %s.", err)
		return nil
	}
	format, err := contents.Recognize(text)
	if err != nil {
		return p.src.Errorf(&p.Source, "Not an SBOM", "%s on the machine cannot be used: %s.", p.Source, err)
	}
	to, err := p.write(text, format)
	if err != nil {
		return p.src.Errorf(&p.Destination, "Cannot write the SBOM", "%s.", err)
	}
	if p.AutoGenerate {
		s.Say(ctx, "The SBOM of %d packages is in %s. It is not sent to HCP Packer.", count, to)
	} else {
		s.Say(ctx, "The SBOM is in %s. It is not sent to HCP Packer.", to)
	}
	return nil
}

// checkDestination returns an error if the directory of the destination does not exist.
func (p *provision) checkDestination() error {
	if strings.HasSuffix(filepath.ToSlash(p.Destination), "/") {
		if info, err := os.Stat(p.Destination); err != nil || !info.IsDir() {
			return p.src.Errorf(&p.Destination, "No directory", "%s is not an existing directory. Create it, or name a file.", p.Destination)
		}
	}
	return nil
}

// write writes the SBOM to the destination, and returns the path.
func (p *provision) write(text []byte, format contents.Format) (string, error) {
	to := p.Destination
	if to == "" {
		to = "."
	}
	if info, err := os.Stat(to); err == nil && info.IsDir() {
		name := p.SBOMName + format.Extension()
		if p.SBOMName == "" {
			name = "packer-user-sbom-" + strconv.FormatUint(rand.Uint64(), 36) + ".json"
		}
		to = filepath.Join(to, name)
	} else if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return "", err
	}
	return to, wholefile.WriteData(to, 0o644, text)
}

// run is one call of Provision.
type run struct {
	*provision
	remote.Machine
}

// document returns the SBOM and, if it is made here, the number of its packages.
func (r *run) document(ctx context.Context) ([]byte, int, error) {
	if !r.AutoGenerate {
		r.Scope.Say(ctx, "Downloading the SBOM %s", r.Source)
		text, err := r.download(ctx)
		return text, 0, err
	}
	if r.Data["ConnType"].Text == "winrm" {
		return nil, 0, errors.New("auto_generate reads Linux machines; on Windows make the SBOM with another tool, and set source")
	}
	r.Scope.Say(ctx, "Reading the packages installed on the machine")
	scan, _ := parse(r.ScannerArgs)
	shell := r.stdin
	if r.ExecuteCommand != "" {
		shell = r.command
	}
	c, err := contents.FromMachine(ctx, shell, r.ScanPath)
	if err != nil {
		return nil, 0, err
	}
	for i, problem := range c.Problems {
		if i == maxWarnings {
			r.Scope.Warn(ctx, "Missing in the SBOM: %d more, which are listed in it", len(c.Problems)-i)
			break
		}
		r.Scope.Warn(ctx, "Missing in the SBOM: %s", problem)
	}
	c.Exclude(scan.exclude)
	var b bytes.Buffer
	err = c.Write(&b, scan.format, contents.Document{Name: r.SBOMName, Time: r.now(), Version: release.Version})
	return b.Bytes(), len(c.Packages), err
}

// root starts a shell, as root if that needs no password.
const root = `sh -c 'if [ "$(id -u)" != 0 ] && sudo -n true </dev/null >/dev/null 2>&1; then exec sudo -n sh -s; fi; exec sh -s'`

// stdin is the [contents.Shell] that writes no files to the machine, not even temporarily.
func (r *run) stdin(ctx context.Context, script string, out io.Writer) error {
	return r.shell(ctx, communicator.Command{Line: root, Stdin: strings.NewReader(script), Stdout: out})
}

func (r *run) shell(ctx context.Context, c communicator.Command) error {
	errOut := &communicator.Head{Max: 4 << 10}
	c.Stderr = errOut
	st, err := r.Run(ctx, c)
	if err == nil && st.Code != 0 {
		err = fmt.Errorf("exit status %d: %s", st.Code, strings.TrimSpace(errOut.String()))
	}
	return err
}

// command is the [contents.Shell] of execute_command, with files for the script and its
// output.
func (r *run) command(ctx context.Context, script string, out io.Writer) error {
	// The directory is not writable for other users: root may write the output, and must
	// not follow another user's link.
	dir := "/tmp/bake-sbom-" + strconv.FormatUint(rand.Uint64(), 36)
	file, output := dir+"/sbom", dir+"/out"
	line, err := r.Render(r.ExecuteCommand, map[string]any{
		"Path": file, "Output": output, "ScanPath": r.ScanPath, "Args": strings.Join(r.ScannerArgs, " "),
	})
	if err != nil {
		return fmt.Errorf("execute_command: %w", err)
	}
	err = r.MakeDirs(ctx, "711", dir)
	if err == nil {
		err = r.Upload(ctx, file, 0o755, []byte("#!/bin/sh\n"+script))
	}
	if err == nil {
		var code int
		if code, err = r.Execute(ctx, line); err == nil && code != 0 {
			err = fmt.Errorf("execute_command: exit status %d", code)
		}
	}
	if err == nil {
		err = r.shell(ctx, communicator.Command{Line: "cat " + output + " 2>/dev/null || sudo -n cat " + output, Stdout: out})
	}
	rm := "rm -rf " + dir
	return r.Remove(ctx, err, []string{dir}, rm+" 2>/dev/null || sudo -n "+rm)
}

// download downloads an existing SBOM.
func (r *run) download(ctx context.Context) ([]byte, error) {
	from, err := remote.Expand(ctx, r.Machine.Machine, r.Source)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bake-sbom-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := remote.GetAtMost(ctx, r.Machine.Machine, from, root, maxSBOM); err != nil {
		return nil, fmt.Errorf("download: %w", err)
	}
	info, err := root.Lstat(path.Base(from))
	if err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is not a regular file", r.Source), err)
	}
	return root.ReadFile(path.Base(from))
}
