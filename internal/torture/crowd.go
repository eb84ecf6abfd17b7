//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// crowd is a group of simultaneous bakes on one cloud that share a state directory.
type crowd struct {
	name      string
	processes int
	sources   int     // of each process
	rate      float64 // limit on the rate of calls, as a multiple of EC2's; 0: no limit
	killed    bool    // kill all bakes while they run, and then run as many sweeps simultaneously
	memory    int64   // maximum memory of a process in MB; 0: no limit
}

// crowds returns the crowds by name. In a short torture, fewer calls are refused.
func crowds(short bool) []crowd {
	if short {
		return []crowd{
			{name: "25 sweeps of 25 killed bakes", processes: 25, sources: 1, killed: true},
			{name: "50 sources under throttling", processes: 1, sources: 50, rate: 10},
		}
	}
	return []crowd{
		{name: "50 sources under throttling", processes: 1, sources: 50, rate: 1},
		{name: "25 processes of 2 sources under throttling", processes: 25, sources: 2, rate: 1},
		{name: "25 sweeps of 25 killed bakes", processes: 25, sources: 2, killed: true},
		{name: "50 sources", processes: 1, sources: 50, memory: 300},
		{name: "500 sources", processes: 1, sources: 500, memory: 300},
	}
}

// bucket is a token bucket with one token per call, like EC2's.
type bucket struct {
	size, rate, tokens float64
	last               time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.tokens = min(b.size, b.tokens+b.rate*now.Sub(b.last).Seconds())
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// throttle refuses calls that come too fast, like EC2, separately in each region.
type throttle struct {
	factor  float64
	mu      sync.Mutex
	buckets map[string]*bucket
	calls   map[string]int // by action
	refused int
}

// limits are EC2's limits on the calls of a category: the number of calls at once, and the
// number per second after that.
var limits = map[string]bucket{"look": {size: 100, rate: 20}, "change": {size: 50, rate: 5}, "run": {size: 5, rate: 2}}

func (t *throttle) meddle(what string, w http.ResponseWriter, do func(http.ResponseWriter)) {
	a, call := w.(answer)
	if !call || t.admits(what, a.service) {
		do(w)
		return
	}
	refuse(w, http.StatusServiceUnavailable, "RequestLimitExceeded", "Request limit exceeded.")
}

func (t *throttle) admits(what, service string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	action, region, _ := strings.Cut(what, "@")
	t.calls[action]++
	if t.factor == 0 || service != "ec2" {
		return true
	}
	category := "change"
	switch {
	case strings.HasPrefix(action, "Describe") || strings.HasPrefix(action, "Get"):
		category = "look"
	case action == "RunInstances" || action == "StopInstances":
		category = "run"
	}
	b := t.buckets[category+region]
	if b == nil {
		b = new(limits[category])
		b.size, b.rate, b.last = b.size*t.factor, b.rate*t.factor, time.Now()
		b.tokens = b.size
		t.buckets[category+region] = b
	}
	if !b.take(time.Now()) {
		t.refused++
		return false
	}
	return true
}

// gathering is the result of a crowd.
type gathering struct {
	crowd    crowd
	calls    map[string]int
	refused  int
	memory   int64 // MB, of the largest process
	took     time.Duration
	problems []string
}

func (g *gathering) String() string {
	all := 0
	for _, n := range g.calls {
		all += n
	}
	bakes := g.crowd.processes * g.crowd.sources
	return fmt.Sprintf("%s: %s, %.1f calls a bake, %d calls refused, at most %d MB", g.crowd.name, g.took.Round(time.Second), float64(all)/float64(bakes), g.refused, g.memory)
}

// bakeTakes is the additional time allowed for each bake of a crowd on a busy host.
const bakeTakes = 4 * time.Second

// run runs the bakes of the crowd at the same time, in a cloud in dir.
func (c crowd) run(ctx context.Context, bake, dir string) (_ *gathering, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute+time.Duration(c.processes*c.sources)*bakeTakes)
	defer cancel()
	w, err := newWorld(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close(context.WithoutCancel(ctx))) }()
	t := &throttle{factor: c.rate, buckets: map[string]*bucket{}, calls: map[string]int{}}
	w.disturb(t.meddle)
	g := &gathering{crowd: c}
	start := time.Now()
	for i := range c.processes {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.pkr.hcl", i)), []byte(many(fmt.Sprint("image-", i), c.sources)), 0o600); err != nil {
			return nil, err
		}
	}
	g.all(c.processes, func(i int) *exec.Cmd { return w.command(ctx, bake, "build", fmt.Sprintf("%d.pkr.hcl", i)) })
	g.took, g.calls, g.refused = time.Since(start), maps.Clone(t.calls), t.refused
	w.settle()
	if c.killed {
		g.crowd.killed = false
		g.all(c.processes, func(int) *exec.Cmd { return w.command(ctx, bake, "sweep") })
		g.crowd.killed = true
	}
	w.settle()
	return g, g.inspect(w)
}

// all runs processes side by side.
func (g *gathering) all(n int, command func(i int) *exec.Cmd) {
	var (
		mu    sync.Mutex
		group sync.WaitGroup
	)
	for i := range n {
		group.Go(func() {
			cmd := command(i)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			err := cmd.Start()
			if err == nil && g.crowd.killed {
				time.AfterFunc(time.Duration(500+rand.IntN(4000))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			}
			var peak int64
			if err == nil {
				watched := make(chan int64)
				over := make(chan struct{})
				go func() { watched <- peakMemory(cmd.Process.Pid, over) }()
				err = cmd.Wait()
				close(over)
				peak = <-watched
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil && !g.crowd.killed {
				g.problems = append(g.problems, fmt.Sprintf("%s: %v: %s", strings.Join(cmd.Args[1:], " "), err, tail(out.String())))
			}
			g.memory = max(g.memory, peak)
		})
	}
	group.Wait()
}

// peakMemory returns the maximum memory of a process until over is closed, in MB. The
// kernel's own figure after the end of a process cannot be used: it includes the parent's
// memory at the time of the fork.
func peakMemory(pid int, over <-chan struct{}) (peak int64) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if _, after, ok := strings.Cut(string(status), "VmHWM:"); ok && err == nil {
			var kb int64
			if _, err := fmt.Sscan(after, &kb); err == nil {
				peak = max(peak, kb<<10/1_000_000)
			}
		}
		select {
		case <-over:
			return peak
		case <-tick.C:
		}
	}
}

// tail returns the end of a process's output.
func tail(text string) string { return text[max(0, len(text)-2000):] }

// inspect checks for leftovers and inconsistencies.
func (g *gathering) inspect(w *world) error {
	held, err := w.inventory()
	if err != nil {
		return err
	}
	ids := slices.Collect(maps.Keys(held.images))
	bakes := g.crowd.processes * g.crowd.sources
	if !g.crowd.killed && len(ids) != bakes {
		g.problems = append(g.problems, fmt.Sprintf("%d images of %d", len(ids), bakes))
	}
	for _, left := range held.beside(ids) {
		g.problems = append(g.problems, "left: "+left)
	}
	if g.crowd.memory > 0 && g.memory > g.crowd.memory {
		g.problems = append(g.problems, fmt.Sprintf("a process took %d MB; the goal is at most %d", g.memory, g.crowd.memory))
	}
	ledgers, err := os.ReadDir(filepath.Join(w.dir, "state", "ledgers"))
	for _, l := range ledgers {
		text, _ := os.ReadFile(filepath.Join(w.dir, "state", "ledgers", l.Name()))
		g.problems = append(g.problems, fmt.Sprintf("left: ledger %s of %d bytes: %s", l.Name(), len(text), tail(string(text))))
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// gather runs one crowd after the other, and prints the results.
func (t *torture) gather(ctx context.Context) error {
	var all error
	for _, c := range crowds(t.trials > 0) {
		if !t.match.MatchString(c.name) {
			continue
		}
		dir, err := os.MkdirTemp(t.dir, "crowd")
		if err != nil {
			return err
		}
		g, err := c.run(ctx, t.bake, dir)
		os.RemoveAll(dir)
		if err != nil {
			return err
		}
		fmt.Println(g)
		for _, p := range g.problems {
			fmt.Println("  " + p)
			all = errGoals
		}
		if t.verbose {
			fmt.Println("  calls:", g.calls)
		}
	}
	return all
}
