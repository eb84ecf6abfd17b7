package fleet

import (
	"fmt"
	"strings"
	"time"

	"bake/internal/prose"
)

// Outcomes returns the outcomes of the cells that have ended.
func (s Status) Outcomes() (all []Outcome) {
	for _, c := range s.Cells {
		if c.Outcome != nil {
			all = append(all, *c.Outcome)
		}
	}
	return all
}

// Reused reports whether there are cells and all of their images were reused.
func (s Status) Reused() bool {
	all := s.Outcomes()
	for _, o := range all {
		if o.Result != Reused {
			return false
		}
	}
	return len(all) > 0
}

// Tree shows the status of a run: each image with its cells.
func (s Status) Tree(now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s; run %s, since %s; %d of %d cells have ended\n", s.Fleet, s.State, s.Run, s.Started.Local().Format(time.DateTime), len(s.Outcomes()), len(s.Cells))
	if !s.Next.IsZero() {
		fmt.Fprintf(&b, "The next run begins at %s\n", s.Next.Local().Format(time.DateTime))
	}
	if s.SchedulePaused != "" {
		fmt.Fprintf(&b, "The schedule begins no runs: %s; bake fleet resume %s ends that\n", prose.Line(s.SchedulePaused), s.Fleet)
	}
	if text := s.UnpolledText(); text != "" {
		fmt.Fprintln(&b, text)
	}
	var cells prose.Table
	image := ""
	for _, c := range s.Cells {
		if c.Cell.Image != image {
			image = c.Cell.Image
			cells.Row(image)
		}
		cells.Row("  "+c.Cell.Account, c.Cell.Region, c.State, c.Does(now))
	}
	return strings.TrimSuffix(b.String()+cells.String(), "\n")
}

// UnpolledText describes what waits for a worker; empty if nothing does.
func (s Status) UnpolledText() string {
	if len(s.Unpolled) == 0 {
		return ""
	}
	return fmt.Sprintf("No worker polls %s: its tasks wait for a bake worker", strings.Join(s.Unpolled, ", "))
}

// UnansweredText explains why the status of a run is not current; empty if it is.
func (s Status) UnansweredText() string {
	if s.Unanswered == "" {
		return ""
	}
	return "The state of the run cannot be queried; the run continues: " + prose.Line(s.Unanswered)
}

// Does describes on one line what the cell is doing, or how it ended.
func (c CellStatus) Does(now time.Time) string {
	switch o := c.Outcome; {
	case o != nil && o.Error != "":
		return prose.Line(o.Error)
	case o != nil && o.Image.ID != "":
		return prose.Line(o.Image.ID + "  " + o.Waits.Text())
	case o == nil && !c.Started.IsZero() && c.State == StateRunning:
		return strings.TrimSpace(c.Phase + " " + now.Sub(c.Started).Round(time.Second).String())
	}
	return c.Phase
}

// Summary describes how the cells of a run of the fleet have ended, and what the user can
// do next. local means that the run was on the local cloud, columns is as for [prose.Table.Within].
func (f *Fleet) Summary(s Status, local bool, columns int) string {
	then, by := "the next run of the fleet, or bake images promote, has it enter then", ""
	if f.Engine != nil {
		then, by = "the fleet has it enter then", " -by NAME"
	}
	count := map[Result]int{}
	table := prose.NewTable("CELL", "RESULT", "TOOK", "IMAGE")
	failed := false
	for _, o := range s.Outcomes() {
		count[o.Result]++
		failed = failed || !o.Result.OK()
		image, took := "-", "-"
		if o.Image.ID != "" {
			image = o.Image.ID
		}
		if !o.Started.IsZero() {
			took = o.Ended.Sub(o.Started).Round(time.Second).String()
		}
		table.Row(o.Cell.Short(), o.Result, took, image)
	}
	var parts []string
	for _, r := range []Result{Built, Reused, Failed, Skipped, Cancelled} {
		if n := count[r]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, r))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n%s", table.Within(columns), strings.Join(parts, ", "))
	for _, o := range s.Outcomes() {
		for _, k := range o.Soaking {
			fmt.Fprintf(&b, "\n%s may enter channel %s from %s on: %s", o.Image.ID, k.Channel, k.Until.Local().Format(time.DateTime), then)
		}
		for _, channel := range o.Awaiting {
			fmt.Fprintf(&b, "\nTo approve %s: bake fleet approve %s/%s %s%s", o.Image.ID, f.Name, o.Cell.Short(), channel, by)
		}
	}
	if failed {
		on := ""
		if local {
			on = " -local"
		}
		fmt.Fprintf(&b, "\nTo bake what has no image: bake fleet run %s%s -resume", f.Name, on)
	}
	return b.String()
}
