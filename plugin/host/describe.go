package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"bake/communicator"
	"bake/internal/lazyregexp"
	"bake/internal/procgroup"
)

// Description is a plugin's description of itself.
type Description struct {
	Version        string   `json:"version"`
	SDK            string   `json:"sdk_version"`
	API            string   `json:"api_version"` // such as x5.0
	Builders       []string `json:"builders"`
	PostProcessors []string `json:"post_processors"`
	Provisioners   []string `json:"provisioners"`
	DataSources    []string `json:"datasources"`
	Protocol       string   `json:"protocol_version"` // empty before v2
}

// unnamed is a plugin's name for the component that has the same name as the plugin.
const unnamed = "-packer-default-plugin-name-"

// Labels returns the names that templates use for the plugin's components if the plugin is called
// name, sorted and without duplicates.
func (d Description) Labels(name string) []string {
	labels := []string{}
	for _, c := range slices.Concat(d.Builders, d.Provisioners, d.PostProcessors, d.DataSources) {
		if c == unnamed {
			labels = append(labels, name)
		} else {
			labels = append(labels, name+"-"+c)
		}
	}
	slices.Sort(labels)
	return slices.Compact(labels)
}

const (
	describeTimeout  = time.Minute
	maxDescription   = 1 << 20
	maxComponents    = 1000
	maxComponentName = 200
)

var componentName = lazyregexp.New(`^[A-Za-z0-9_.-]+$`)

// Describe runs a binary to get its description. The caller has made sure that the binary may be
// run.
func Describe(ctx context.Context, path string, env []string) (d Description, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, describeTimeout, fmt.Errorf("it did not describe itself within %s", describeTimeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "describe")
	out, errOut := &communicator.Head{Max: maxDescription}, &communicator.Head{Max: 64 << 10}
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = env, out, errOut, time.Second
	err = procgroup.Run(cmd)
	if cmd.Process != nil {
		_ = cmd.Cancel() // processes that the plugin has left behind
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) { // those may have held its output
		if cause := context.Cause(ctx); cause != nil {
			return d, cause
		}
		if text := strings.TrimSpace(lastLines(errOut.String(), 5)); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return d, fmt.Errorf("asked to describe itself, it failed: %w", err)
	}
	if out.Cut() {
		return d, errors.New("it describes itself in more than a megabyte")
	}
	if err := json.Unmarshal([]byte(out.String()), &d); err != nil || d.API == "" {
		return d, errors.New("it does not describe itself as a Packer plugin does")
	}
	n := 0
	for _, names := range [][]string{d.Builders, d.PostProcessors, d.Provisioners, d.DataSources} {
		for _, name := range names {
			if n++; n > maxComponents || len(name) > maxComponentName || !componentName.Get().MatchString(name) {
				return d, fmt.Errorf("it names a component %.50q, or too many of them", name)
			}
		}
	}
	return d, nil
}

// lastLines returns the last n lines of a text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
