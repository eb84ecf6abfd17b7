package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bake/internal/prose"
	"bake/internal/wholefile"
	"bake/run"
)

func (p *program) reportCommand() *cobra.Command {
	var out string
	var open bool
	cmd := &cobra.Command{
		Use:   "report [RUN]",
		Short: "Write the HTML report of a run",
		Long: `Write a report about a run of bake build as one self-contained HTML page: the images and
how to launch them, the findings of checks and scans, and a timeline of the steps. RUN is
the ID of a run, or its beginning, as bake runs lists it; the default is the newest run.
The page is written beside the log of the run, or to the file given with -output. With
-json, the report is written as JSON.`,
		Example: `  bake report
  bake report 5e0d7c1e -open
  bake report -o report.html`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{"bake report takes at most one run", cmd.CommandPath()}
			}
			return p.writeReport(cmd.Context(), strings.Join(args, ""), out, open)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write the page to this `file`; - is standard output")
	cmd.Flags().BoolVar(&open, "open", false, "open the page in the browser")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) writeReport(ctx context.Context, prefix, out string, open bool) error {
	if out == "-" && (open || p.json.on || p.machineReadable) {
		return usageError{"-o - cannot be combined with -open, -json or -machine-readable", "bake report"}
	}
	state, err := p.env.state()
	if err != nil {
		return err
	}
	id, err := state.Find(prefix)
	if err != nil {
		return err
	}
	r, err := state.Report(id, version)
	if err != nil {
		return err
	}
	if out == "-" {
		return r.HTML(p.stdout)
	}
	if out == "" {
		out = filepath.Join(state.Reports(id), "report.html")
		if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil { // readable for users who may read the parent directory
			return err
		}
	}
	if err := wholefile.Write(out, 0o644, func(f *os.File) error { return r.HTML(f) }); err != nil {
		return err
	}
	p.json.result = r
	p.say("The report of run " + run.ShortID(id) + " is " + out + ".")
	if !open {
		return nil
	}
	if out, err = filepath.Abs(out); err != nil {
		return err
	}
	if err := browse(ctx, out); err != nil {
		return fmt.Errorf("%w; open %s in one", err, out)
	}
	return nil
}

// browse opens a file or an address in the browser of the user.
func browse(ctx context.Context, path string) error {
	words := []string{"xdg-open", path}
	switch runtime.GOOS {
	case "darwin":
		words = []string{"open", path}
	case "windows":
		words = []string{"rundll32", "url.dll,FileProtocolHandler", path}
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...) // a program that opens files
	cmd.WaitDelay = time.Second                             // a browser that it has started may keep running, and hold the output open
	if out, err := cmd.CombinedOutput(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("no browser can be opened: %w: %s", err, prose.OneLine(string(out)))
	}
	return nil
}
