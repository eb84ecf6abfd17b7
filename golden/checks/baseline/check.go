package baseline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"

	"bake/golden/findings"
)

// Check checks the selected rules on a machine in one call, without changing anything
// there. An error means that no rule could be checked; a single rule that could not be
// checked is a finding.
func Check(ctx context.Context, m Machine, s Selection) (findings.Report, error) {
	rules, err := s.rules()
	if err != nil {
		return findings.Report{}, err
	}
	report := findings.Report{Name: Name, Tool: Name, Started: time.Now()}
	answers, err := ask(ctx, m, "check", checkTime, ids(rules))
	if err != nil {
		return findings.Report{}, fmt.Errorf("checking %s: %w", Name, err)
	}
	waiting := 0
	for _, r := range rules {
		f, a := r.finding(), answers[r.ID]
		f.Evidence = a.text
		switch a.status {
		case passed:
			f.Result = findings.Pass
		case failed, rebootNeeded:
			f.Result = findings.Fail
		case notApplicable:
			f.Result = findings.NotApplicable
		case kernelNeeded:
			f.Result = findings.NotApplicable
			waiting++
		default:
			f.Result = findings.Error
			if f.Evidence == "" {
				f.Evidence = fmt.Sprintf("the check ended with status %d and said nothing", a.status)
			}
		}
		report.Findings = append(report.Findings, f)
	}
	if waiting > 0 {
		report.Warnings = []string{fmt.Sprintf("%d of %d rules of %s could not be checked, because this machine runs on the kernel of its host: check them on a machine with a kernel of its own, such as one on EC2", waiting, len(rules), Name)}
	}
	return report, nil
}

func ids(rules []rule) (ids []string) {
	for _, r := range rules {
		ids = append(ids, r.ID)
	}
	return ids
}

// Remediate runs the fix of each rule that failed in a report of Check, and checks all
// selected rules again. Rules that pass now are fixed; for the others, the findings
// include the output of the fix.
//
// Fixes write separate files where possible; see scripts/. Before and after them,
// Remediate tries a second login. If it fails before, nothing is fixed; if it fails after,
// the files of the fixes that control logins are removed again. Either is an error.
func Remediate(ctx context.Context, m Machine, s Selection, before findings.Report) (findings.Report, error) {
	var todo []rule
	for _, f := range before.Findings {
		i := slices.IndexFunc(table, func(r rule) bool { return r.ID == f.ID })
		if i >= 0 && f.Result == findings.Fail && table[i].automatic() {
			todo = append(todo, table[i])
		}
	}
	if len(todo) == 0 {
		return before, nil
	}
	sort.SliceStable(todo, func(i, j int) bool { return turn(todo[i].ID) < turn(todo[j].ID) })
	if err := tryLogin(ctx, m); err != nil {
		return findings.Report{}, fmt.Errorf("nothing of %s was fixed, because it could not be shown afterwards that the machine still lets its user in: %w", Name, err)
	}
	said, err := ask(ctx, m, "fix", fixTime, ids(todo))
	if err == nil {
		if err = tryLogin(ctx, m); err != nil {
			err = fmt.Errorf("logging in fails after the fixes: %w", err)
		}
	}
	if err != nil {
		return findings.Report{}, errors.Join(fmt.Errorf("fixing what fails of %s: %w", Name, err), undo(ctx, m))
	}
	after, err := Check(ctx, m, s)
	if err != nil {
		return findings.Report{}, err
	}
	for i := range after.Findings {
		f := &after.Findings[i]
		fix, tried := said[f.ID]
		if !tried {
			continue
		}
		switch {
		case f.Result == findings.Pass:
			f.Result = findings.Fixed
			f.Evidence = fix.text
		case f.Result == findings.Fail && fix.status == rebootNeeded:
			f.Result = findings.Fixed
			f.Evidence = "after a reboot"
		case f.Result == findings.Fail:
			f.Evidence = strings.TrimPrefix(f.Evidence+"; the fix did not help", "; ")
			if fix.text != "" {
				f.Evidence += ": " + fix.text
			}
		}
	}
	return after, nil
}

// turn returns the position of a rule's fix in the order: packages first, since they bring
// files of their own, and SSH last, when everything that it depends on is final.
func turn(id string) int {
	switch {
	case strings.HasPrefix(id, "pkg-"):
		return 0
	case strings.HasPrefix(id, "ssh-"):
		return 2
	}
	return 1
}

const loginTime = 2 * time.Minute

func tryLogin(ctx context.Context, m Machine) error {
	ctx, cancel := context.WithTimeoutCause(ctx, loginTime, fmt.Errorf("it takes longer than %s", loginTime))
	defer cancel()
	if err := m.LogIn(ctx); err != nil {
		return fmt.Errorf("logging in over a second connection: %w", err)
	}
	return nil
}

// undo removes the changes that control logins. It runs even if ctx has ended.
func undo(ctx context.Context, m Machine) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loginTime)
	defer cancel()
	if err := m.Run(ctx, scripts()+"\nundo </dev/null\nexit\n", io.Discard); err != nil {
		return fmt.Errorf("taking the fixes away again: %w; remove the files named *bake-baseline* below /etc yourself", err)
	}
	return nil
}
