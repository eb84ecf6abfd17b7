package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"bake/builder"
	"bake/step"
)

// Distribute makes all copies of the first image concurrently, shares each as soon as it
// exists, and transfers the images that are kept to the user. It returns them. With an
// error, some are missing: a failure in one region does not affect the images of the
// others. If ctx ends before the transfer, there are none.
func (m *Maker) Distribute(ctx context.Context, first Made, labels Labels) ([]Made, error) {
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		made []Made
		errs []error
	)
	in := func(region string, image func() (Made, error)) {
		all.Go(func() {
			one, err := step.Memo(ctx, m.Scope, "image in "+region, func(ctx context.Context) (Made, error) {
				one, err := image()
				if err == nil && m.Finish != nil {
					err = m.Finish(ctx, one)
				}
				if err == nil {
					err = m.share(ctx, one)
				}
				return one, err
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("image in %s: %w", region, err))
				return
			}
			made = append(made, one)
		})
	}
	if !m.temporary() {
		in(first.Region, func() (Made, error) { return first, nil })
	}
	for _, region := range m.copyTo() {
		in(region, func() (Made, error) { return m.copyWithRetries(ctx, first, region, labels) })
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, step.ErrBoundary) }) {
		return nil, step.ErrBoundary
	}
	if len(made) > 0 {
		kept, err := m.finalize(ctx, made)
		made, errs = kept, append(errs, err)
	}
	return made, errors.Join(errs...)
}

// Artifact describes the images that a builder has made. data are the values of build.*;
// the artifact includes only the public ones, since artifacts are written to files.
func Artifact(builderID string, made []Made, data builder.Data) *builder.Artifact {
	sort.Slice(made, func(i, j int) bool { return made[i].Region < made[j].Region })
	a := &builder.Artifact{BuilderID: builderID, Images: map[string]string{}, Data: data.Public()}
	var ids, lines []string
	for _, m := range made {
		a.Images[m.Region] = m.ID
		a.Resources = append(a.Resources, m.Resource)
		ids = append(ids, m.Region+":"+m.ID)
		lines = append(lines, m.Region+": "+m.ID+"\n")
	}
	a.ID = strings.Join(ids, ",")
	a.Text = fmt.Sprintf("AMIs were created:\n%s", strings.Join(lines, ""))
	return a
}
