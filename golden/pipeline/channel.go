package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"bake/builder"
	"bake/golden/bakefile"
	"bake/golden/channels"
	"bake/internal/delay"
	"bake/internal/imagetag"
	"bake/step"
)

// why is a line for the history of a channel.
func (p *pipeline) why(s *step.Scope, from string) string {
	what := "built"
	if from != "" {
		what = "promoted from " + from
	}
	return channels.Why(what, s.Run.ID)
}

// state is what is known of the image for a channel.
func (p *pipeline) state(ctx context.Context, s *step.Scope, out builder.Outlet, h *bakefile.Channel) (channels.State, error) {
	p.mu.Lock()
	p.recall(s)
	state := channels.State{Passed: slices.Sorted(maps.Keys(p.passes)), Now: p.Now()}
	p.mu.Unlock()
	if len(state.Passed) == 0 && len(p.placed) > 0 { // the image was there before the run
		tags, err := out.Tags(ctx, p.placed[0])
		if err != nil {
			return state, err
		}
		var told bool
		state.Passed, told = channels.Passed(tags[imagetag.Verified])
		state.Untold = !told
	}
	for i := range p.image.Image.Channels {
		from := &p.image.Image.Channels[i]
		if from.Name != h.From {
			continue
		}
		in, err := out.Channel(ctx, from.ParameterOf(p.image.Name), p.placed)
		if err != nil {
			return state, err
		}
		state.In, state.Since = in.Names, in.Since
	}
	if !h.Approval {
		return state, nil
	}
	state.Approved = true
	for _, at := range p.placed {
		if at.Shared {
			continue
		}
		tags, err := out.Tags(ctx, at)
		if err != nil {
			return state, err
		}
		state.Approved = state.Approved && tags[channels.ApprovalTag(h.Name)] != ""
		break
	}
	return state, nil
}

// notice is what a webhook is told.
type notice struct {
	Image   string   `json:"image"`
	Channel string   `json:"channel"`
	Run     string   `json:"run"`
	At      string   `json:"at"`
	Images  []spot   `json:"images"`
	Passed  []string `json:"passed"`
}

type spot struct {
	Account string `json:"account"`
	Region  string `json:"region"`
	ID      string `json:"id"`
}

// How often a webhook is told, and how long it may take each time.
const (
	tellTries = 3
	tellLimit = 10 * time.Second
)

// notify tells the webhook of a channel that it has moved. The channel has, whether the
// webhook hears of it or not: a failure is a warning. It is told what the image has passed, in
// this run or an earlier one.
func (p *pipeline) notify(ctx context.Context, s *step.Scope, h *bakefile.Channel, passed []string) {
	if h.Webhook == "" {
		return
	}
	n := notice{Image: p.image.Name, Channel: h.Name, Run: s.Run.ID, At: p.Now().UTC().Format(time.RFC3339)}
	n.Images, n.Passed = []spot{}, append([]string{}, passed...) // not null where there are none
	for _, at := range p.placed {
		n.Images = append(n.Images, spot{at.Account, at.Region, at.ID})
	}
	body, err := json.Marshal(n)
	for try := 1; err == nil; try++ {
		if err = post(ctx, h.Webhook, body); err == nil || context.Cause(ctx) != nil {
			return
		}
		if try == tellTries {
			break
		}
		err = delay.For(ctx, time.Duration(try)*time.Second)
	}
	s.Warn(ctx, "The webhook of channel %s was not told: %s", h.Name, err)
}

// post sends a text. What the server answers besides the status is not read, and it cannot
// send bake elsewhere. Errors name the host alone: the rest of the URL may be a secret.
func post(ctx context.Context, to string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	u, err := url.Parse(to)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s cannot be called", u.Host)
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(req)
	if e, ok := err.(*url.Error); ok { //nolint:errorlint // as Do documents
		return fmt.Errorf("%s: %w", u.Host, e.Err)
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 1<<16)
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers %s", u.Host, answer.Status)
	}
	return nil
}
