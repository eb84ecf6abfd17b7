//go:build linux

// Torture injects failures: it bakes with the real program on embedded clouds whose
// machines boot instantly. At every point of a bake, which is an API call or a command on
// the machine, it kills bake, interrupts it, or refuses or loses the call. Then it sweeps,
// and compares the contents of the cloud with the expected ones.
//
//	go run ./internal/torture              everything
//	go run ./internal/torture -trials 100  as many of them, drawn by the seed
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

func main() {
	var t torture
	flag.StringVar(&t.bake, "bake", "", "the `program`; it is built if need be")
	flag.Uint64Var(&t.seed, "seed", 0, "what draws the trials and their order; 0 is any")
	flag.IntVar(&t.trials, "trials", 0, "`how many` trials; 0 is all")
	flag.StringVar(&t.only, "only", "", "hold only the trials whose names match this `expression`")
	flag.IntVar(&t.jobs, "jobs", 4*runtime.NumCPU(), "how many trials are held at a time; most of them wait")
	flag.BoolVar(&t.verbose, "v", false, "show what bake says in trials that fail")
	flag.Parse()
	if err := t.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

type torture struct {
	bake, only   string
	seed         uint64
	trials, jobs int
	verbose      bool
	dir          string
	match        *regexp.Regexp // of only
	courses      map[string]*course
}

var errGoals = errors.New("the goals are missed")

func (t *torture) run(ctx context.Context) (err error) {
	if t.seed == 0 {
		t.seed = rand.Uint64N(1e9) + 1
	}
	fmt.Println("seed", t.seed)
	if t.dir, err = os.MkdirTemp("", "torture"); err != nil {
		return err
	}
	defer os.RemoveAll(t.dir)
	if t.bake == "" {
		t.bake = filepath.Join(t.dir, "bake")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", t.bake, "./cmd/bake").CombinedOutput(); err != nil {
			return fmt.Errorf("build bake: %w: %s", err, out)
		}
	}
	if t.bake, err = filepath.Abs(t.bake); err != nil {
		return err
	}
	if t.match, err = regexp.Compile(t.only); err != nil {
		return err
	}
	plan, err := t.plan(ctx)
	if err != nil {
		return err
	}
	verdicts, err := t.hold(ctx, plan)
	goals := summarize(verdicts)
	for _, more := range []func(context.Context) error{t.promote, t.gather} {
		goals = errors.Join(goals, more(ctx))
	}
	return errors.Join(err, goals)
}

// plan determines the course of each template, and draws the trials.
func (t *torture) plan(ctx context.Context) (plan []trial, err error) {
	t.courses = map[string]*course{}
	for _, s := range subjects {
		dir := filepath.Join(t.dir, s.name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
		_, c, err := trial{subject: s}.run(ctx, t.bake, dir, nil)
		if err != nil {
			return nil, err
		}
		t.courses[s.name] = c
		plan = append(plan, s.trials(c)...)
	}
	plan = slices.DeleteFunc(plan, func(tr trial) bool { return !t.match.MatchString(tr.String()) })
	slices.SortFunc(plan, func(a, b trial) int { return cmp.Compare(t.lot(a), t.lot(b)) })
	if t.trials > 0 {
		plan = plan[:min(t.trials, len(plan))]
	}
	return plan, nil
}

// lot returns the position of a trial in the order that the seed determines. It depends on
// nothing else, because bake repeats some calls a varying number of times, so the set of
// trials varies too.
func (t *torture) lot(tr trial) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, tr)
	return rand.NewPCG(t.seed, h.Sum64()).Uint64()
}

// trials returns all trials of a template whose undisturbed bake took course c.
func (s subject) trials(c *course) (all []trial) {
	for _, m := range modes() {
		for i, p := range append(slices.Clone(c.points), end) {
			command := !strings.Contains(p.what, "@")
			switch {
			case m.cut:
				for k := range c.cuts[p] {
					all = append(all, trial{s, m, p, k})
				}
			case m.resume && slices.ContainsFunc(c.points[min(i, len(c.points)):], func(p point) bool { return !strings.Contains(p.what, "@") }):
			case p == end, command && !m.commands, m.forever && p.nth > 1:
			default:
				all = append(all, trial{subject: s, mode: m, point: p})
			}
		}
	}
	return all
}

// hold runs trials in parallel.
func (t *torture) hold(ctx context.Context, plan []trial) (verdicts []verdict, err error) {
	var (
		mu    sync.Mutex
		lanes sync.WaitGroup
		next  = make(chan trial)
		start = time.Now()
	)
	for range t.jobs {
		lanes.Go(func() {
			for tr := range next {
				v, failed := t.one(ctx, tr)
				mu.Lock()
				if failed != nil {
					err = errors.Join(err, fmt.Errorf("%s: %w", tr, failed))
				}
				verdicts = append(verdicts, v)
				t.show(v)
				if len(verdicts)%100 == 0 {
					fmt.Fprintf(os.Stderr, "%d of %d after %s\n", len(verdicts), len(plan), time.Since(start).Round(time.Second))
				}
				mu.Unlock()
			}
		})
	}
	for _, tr := range plan {
		next <- tr
	}
	close(next)
	lanes.Wait()
	return verdicts, err
}

func (t *torture) one(ctx context.Context, tr trial) (verdict, error) {
	dir, err := os.MkdirTemp(t.dir, "trial")
	if err != nil {
		return verdict{trial: tr}, err
	}
	defer os.RemoveAll(dir)
	v, _, err := tr.run(ctx, t.bake, dir, t.courses[tr.subject.name])
	return v, err
}

// show prints what is wrong, and how to reproduce it.
func (t *torture) show(v verdict) {
	if !v.bad() {
		return
	}
	fmt.Printf("%s:\n", v.trial)
	for _, l := range v.left {
		fmt.Println("  left:", l)
	}
	for _, l := range v.lost {
		fmt.Println("  lost:", l)
	}
	for _, p := range v.problems {
		fmt.Println("  " + p)
	}
	fmt.Printf("  again: go run ./internal/torture -v -only '^%s$'\n", v.trial)
	if t.verbose {
		fmt.Println(v.said)
	}
}

// summarize prints the table. It returns errGoals if a verdict is bad.
func summarize(verdicts []verdict) (err error) {
	type row struct{ trials, crashes, finished, left, lost, resumed, other int }
	rows := map[string]*row{}
	var names []string
	for _, m := range modes() {
		names = append(names, m.name)
	}
	names = append(names, "all")
	for _, v := range verdicts {
		if !v.struck {
			continue // the bake took a shorter course
		}
		for _, name := range []string{v.trial.mode.name, "all"} {
			r := rows[name]
			if r == nil {
				r = &row{}
				rows[name] = r
			}
			r.trials++
			for _, c := range []struct {
				count *int
				n     bool
			}{{&r.crashes, v.crashed}, {&r.finished, v.finished}, {&r.left, len(v.left) > 0}, {&r.lost, len(v.lost) > 0}, {&r.resumed, v.resumed}, {&r.other, len(v.problems) > 0}} {
				if c.n {
					*c.count++
				}
			}
		}
		if v.bad() {
			err = errGoals
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tfaults\tcrashes\tfinished\tleft\timages lost\tresumed\tother\t")
	for _, name := range names {
		if r := rows[name]; r != nil {
			fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", name, r.trials, r.crashes, r.finished, r.left, r.lost, r.resumed, r.other)
		}
	}
	return errors.Join(w.Flush(), err)
}
