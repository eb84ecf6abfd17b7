package checks

import (
	"context"
	"time"

	"bake/communicator"
	"bake/golden/checks/facts"
	"bake/golden/checks/goss"
	"bake/internal/delay"
)

// again repeats the questions of failed resources that have a retry_count until the
// requirements are met or the count is reached. Each is repeated after its own
// retry_delay, and its answer is replaced.
func (c *Checks) again(ctx context.Context, m communicator.Communicator, suite *goss.Suite, answers []facts.Answer) error {
	asked := map[int]int{}     // number of attempts, by question
	due := map[int]time.Time{} // time of the next attempt, by question
	for {
		var questions []facts.Question
		var which []int
		wait := time.Duration(-1)
		now := time.Now()
		for _, r := range suite.Retries(answers) {
			if asked[r.Question] == r.Times {
				continue
			}
			if due[r.Question].IsZero() {
				due[r.Question] = now.Add(r.Pause)
			}
			left := due[r.Question].Sub(now)
			if left <= 0 {
				asked[r.Question]++
				delete(due, r.Question)
				which, questions = append(which, r.Question), append(questions, suite.Questions()[r.Question])
			} else if wait < 0 || left < wait {
				wait = left
			}
		}
		if len(questions) > 0 {
			c.say("Checking again what did not pass yet")
			found, err := facts.Learn(ctx, m, c.options.As, questions)
			if err != nil {
				return err
			}
			for i, q := range which {
				answers[q] = found[i]
			}
			continue
		}
		if wait < 0 {
			return nil
		}
		if err := delay.For(ctx, wait); err != nil {
			return err
		}
	}
}
