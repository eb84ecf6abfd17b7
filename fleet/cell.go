package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder/amazon"
	"bake/engine"
	"bake/run"
)

// Within returns the restriction of a cell's run to its account and region. The session of
// its role is named after the run.
func Within(c Cell, run string) *amazon.Within {
	return &amazon.Within{Account: c.Account, Region: c.Region, Role: c.Role, Session: "bake-" + run}
}

// Ended returns the outcome of a cell whose run ended with the result, with what its image
// waits for.
func Ended(c Cell, result run.Result, waits Waits, err error, started, ended time.Time) Outcome {
	o := Outcome{Cell: c, Run: result.Run, Started: started, Ended: ended}
	if err == nil {
		made, _ := result.Image(c.Image)
		o.Image = Image{ID: made.ID, IDs: made.IDs, Name: made.Name, Inputs: made.Inputs}
		o.Result, o.Waits = Built, waits
		if result.Reused() {
			o.Result = Reused
		}
		return o
	}
	outcome := run.OutcomeOf(err)
	o.Result, o.Error, o.Code = Failed, reason(err), int(outcome)
	if _, fast := errors.AsType[*engine.FailFastError](err); fast && outcome != run.OutcomeLeft {
		o.Result, o.Code = Cancelled, 0 // the cell that failed has the reason
	} else if outcome >= 128 {
		o.Result = Cancelled
	}
	return o
}

// reason returns the text of an error for the outcome of a cell; for template errors, with
// the places.
func reason(err error) string {
	if wrong, ok := errors.AsType[*run.TemplateError](err); ok {
		var lines []string
		for _, d := range wrong.Diags {
			if d.Severity != hcl.DiagError {
				continue
			}
			at := ""
			if d.Subject != nil {
				at = fmt.Sprintf("%s:%d: ", d.Subject.Filename, d.Subject.Start.Line)
			}
			lines = append(lines, strings.TrimSpace(at+d.Summary+": "+d.Detail))
		}
		return strings.Join(lines, "\n")
	}
	return err.Error()
}

// worst lists the exit codes of cells, the most serious first. Those of signals follow the
// second.
var worst = []run.Outcome{
	run.OutcomeLeft, run.OutcomeTimeout, run.OutcomePartial, run.OutcomeGate, run.OutcomeProvisioning, run.OutcomeFailed, run.OutcomeRefused,
}

// Worst returns the combined outcome of cells: something that was left behind, else the
// signal that ended them, else the most serious failure.
func Worst(all []Outcome) run.Outcome {
	codes := map[run.Outcome]bool{}
	signal := run.OutcomeDone
	failed := false
	for _, o := range all {
		if !o.Result.OK() {
			failed, codes[run.Outcome(o.Code)] = true, true
			if o.Code >= 128 {
				signal = run.Outcome(o.Code)
			}
		}
	}
	switch {
	case !failed:
		return run.OutcomeDone
	case signal != run.OutcomeDone && !codes[run.OutcomeLeft]:
		return signal
	}
	if i := slices.IndexFunc(worst, func(o run.Outcome) bool { return codes[o] }); i >= 0 {
		return worst[i]
	}
	return run.OutcomeFailed
}
