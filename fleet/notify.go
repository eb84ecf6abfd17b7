package fleet

import (
	"context"
	"fmt"
	"slices"
	"time"

	"bake/internal/webhook"
)

// Notice is the notification that a webhook receives as JSON.
type Notice struct {
	Schema  int       `json:"schema"` // 1
	Kind    string    `json:"kind"`   // failed, recovered or approval
	Fleet   string    `json:"fleet"`
	Run     string    `json:"run"`      // of the fleet
	CellRun string    `json:"cell_run"` // of the cell
	Cell    string    `json:"cell"`     // IMAGE/ACCOUNT/REGION
	Image   string    `json:"image"`
	Account string    `json:"account"`
	Region  string    `json:"region"`
	AMI     string    `json:"ami,omitempty"`
	Channel string    `json:"channel,omitempty"` // that the image waits for: bake fleet approve CELL CHANNEL
	Error   string    `json:"error,omitempty"`
	At      time.Time `json:"at"`
}

// Notices returns the notices of an outcome in a run of a fleet. before is the previous
// result of the cell, or empty if there is none.
func Notices(fleetRun string, o Outcome, before Result) (all []Notice) {
	one := Notice{
		Schema: 1, Fleet: o.Cell.Fleet, Run: fleetRun, CellRun: o.Run, Cell: o.Cell.Short(), Image: o.Cell.Image, Account: o.Cell.Account,
		Region: o.Cell.Region, AMI: o.Image.ID, Error: o.Error, At: o.Ended,
	}
	switch {
	case o.Result == Failed:
		one.Kind = "failed"
		all = append(all, one)
	case o.Result.OK() && before == Failed:
		one.Kind = "recovered"
		all = append(all, one)
	}
	for _, channel := range o.Awaiting {
		one.Kind, one.Channel = "approval", channel
		all = append(all, one)
	}
	return all
}

// Send sends a notice to the webhook, if the webhook wants this kind.
func (w Webhook) Send(ctx context.Context, n Notice) error {
	if !slices.Contains(w.On, n.Kind) {
		return nil
	}
	if err := (webhook.Hook{URL: w.URL, Headers: w.Headers, Timeout: w.Timeout}).Send(ctx, n); err != nil {
		return fmt.Errorf("the webhook was not told of %s, kind %s: %w", n.Cell, n.Kind, err)
	}
	return nil
}
