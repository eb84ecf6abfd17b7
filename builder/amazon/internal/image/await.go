package image

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/wait"
	"bake/step"
)

// await waits until an image is available and returns it. kind names what takes
// equally long: an image of an instance, or a copy.
func (m *Maker) await(ctx context.Context, region, id, kind string) (types.Image, error) {
	watcher := access.Watch(m.Session, region)
	p := &progress{start: time.Now()}
	showing, stop := context.WithCancel(ctx)
	var shown sync.WaitGroup
	shown.Go(func() { p.show(showing, m, watcher) })
	defer shown.Wait()
	defer stop()
	return watcher.Images.Until(ctx, wait.Wait[types.Image]{
		ID: id, What: "image " + id + " in " + region + " to become available", Watch: m.Session.Watch(15*time.Second, 30*time.Minute),
		Kind: kind, Usual: wait.Span{Soonest: 20 * time.Second, Latest: time.Minute}, Expect: p.expect,
		Voice: m.Session.Voice(ctx),
		Judge: access.Available(region, id),
	})
}

// progress is the completed part of the snapshots of an image.
type progress struct {
	start time.Time

	mu      sync.Mutex
	percent int64
	at      time.Duration // time after start at which percent last changed
}

// show reports the progress of the snapshots that the build makes in a region, until ctx
// ends. It is only for display and ignores errors.
func (p *progress) show(ctx context.Context, m *Maker, watcher *access.Watcher) {
	news := make(chan int64, 1)
	var showing sync.WaitGroup
	showing.Go(func() {
		for percent := range news {
			m.Scope.Progress(ctx, step.Progress{Done: percent, Total: 100, Unit: "%"})
		}
	})
	defer showing.Wait()
	defer close(news)
	_, _ = watcher.Parts.Until(ctx, wait.Wait[[]types.Snapshot]{
		ID: m.Owner.ID, What: "snapshots", Watch: wait.Watch{Delay: time.Minute, Limit: 24 * time.Hour},
		Later: 5 * time.Second,
		Judge: func(all []types.Snapshot, _ bool) (bool, error) {
			if percent, ok := p.update(all); ok {
				select {
				case news <- percent:
				default: // the display lags behind
				}
			}
			return false, nil
		},
	})
}

// update records the current state of the build's snapshots. Snapshots that were complete
// when the wait began belong to another image.
func (p *progress) update(all []types.Snapshot) (percent int64, ok bool) {
	all = slices.DeleteFunc(slices.Clone(all), func(s types.Snapshot) bool {
		return s.State == types.SnapshotStateCompleted && s.CompletionTime != nil && s.CompletionTime.Before(p.start)
	})
	if len(all) == 0 {
		return 0, false
	}
	for _, s := range all {
		n, _ := strconv.ParseInt(strings.TrimSuffix(aws.ToString(s.Progress), "%"), 10, 64)
		percent += n
	}
	percent /= int64(len(all))
	p.mu.Lock()
	defer p.mu.Unlock()
	if percent != p.percent {
		p.percent, p.at = percent, time.Since(p.start)
	}
	return percent, true
}

// expect estimates from the progress so far when the image will be available. The image
// follows its snapshots within a minute.
func (p *progress) expect() (wait.Span, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.percent < 10 {
		return wait.Span{}, false
	}
	whole := p.at * 100 / time.Duration(p.percent)
	return wait.Span{Soonest: whole * 9 / 10, Latest: whole*11/10 + time.Minute}, true
}
