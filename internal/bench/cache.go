//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// provisioners is the number of provisioners in the template for measuring the cache.
const provisioners = 10

// cache measures repeated builds of a template under development: the cost of a build
// apart from the provisioners that it runs, after a change to the last provisioner, and to
// the fifth.
func (b *bench) cache(context.Context) error {
	dir, err := os.MkdirTemp(b.dir, "cache")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	template := filepath.Join(dir, "t.pkr.hcl")
	versions := make([]int, provisioners)
	loop := func(want int) (wall, own time.Duration, err error) {
		if err := os.WriteFile(template, []byte(editLoop(filepath.Base(dir), versions)), 0o600); err != nil {
			return 0, 0, err
		}
		start := time.Now()
		out, err := b.command("build", "-local", "-cache", "-json", "-color=false", template).Output()
		if err != nil {
			return 0, 0, fmt.Errorf("%w: %s", err, out)
		}
		wall = time.Since(start)
		own, ran := provisioning(out)
		if ran != want {
			return 0, 0, fmt.Errorf("%d provisioners ran, not %d", ran, want)
		}
		return wall, own, nil
	}
	if _, _, err := loop(provisioners); err != nil { // it also makes the base, the first time
		return err
	}
	for _, changed := range []int{10, 5} {
		var walls, owns, rests []time.Duration
		for range b.runs {
			versions[changed-1]++
			wall, own, err := loop(provisioners - changed + 1)
			if err != nil {
				return errors.Join(fmt.Errorf("provisioner %d of %d changed", changed, provisioners), err)
			}
			walls, owns, rests = append(walls, wall), append(owns, own), append(rests, wall-own)
		}
		report(fmt.Sprintf("-cache, provisioner %d of %d changed, median of %d", changed, provisioners, b.runs), round(median(walls)), "")
		report("  of it the provisioners that ran", round(median(owns)), "")
		report("  the rest", round(median(rests)), "goal: at most 2 s")
	}
	return nil
}

// editLoop is a template of provisioners that write their versions.
func editLoop(name string, versions []int) string {
	var t strings.Builder
	fmt.Fprintf(&t, `source "amazon-ebs" "loop" {
  region        = "us-east-1"
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "%s-${uuidv4()}"
  source_ami_filter {
    owners      = ["136693071363"]
    most_recent = true
    filters     = { name = "debian-12-amd64-*" }
  }
}
build {
  sources = ["amazon-ebs.loop"]
`, name)
	for i, v := range versions {
		fmt.Fprintf(&t, "  provisioner \"shell\" {\n    inline = [\"sleep 0.2\", \"echo %s %d version %d | tee -a loop\"]\n  }\n", name, i+1, v)
	}
	return t.String() + "}\n"
}

// provisioning adds up how long the provisioners took in the events of a run, and counts
// them.
func provisioning(events []byte) (took time.Duration, ran int) {
	started := map[string]time.Time{}
	for line := range bytes.Lines(events) {
		var e struct {
			Time       time.Time
			Kind, Step string
		}
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		name := e.Step[strings.LastIndex(e.Step, "> ")+1:]
		if !strings.HasPrefix(strings.TrimSpace(name), "provision with ") {
			continue
		}
		switch e.Kind {
		case "step-started":
			started[e.Step] = e.Time
		case "step-finished":
			took, ran = took+e.Time.Sub(started[e.Step]), ran+1
		}
	}
	return took, ran
}
