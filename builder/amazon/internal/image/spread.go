package image

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"bake/builder"
)

// Spread makes all copies of the first image side by side. Each image is shared
// as soon as it is there. It returns those that stay.
func (m *Maker) Spread(ctx context.Context, first Made, labels Labels) ([]Made, error) {
	var (
		mu   sync.Mutex
		made []Made
	)
	finish := func(ctx context.Context, one Made) error {
		mu.Lock()
		made = append(made, one)
		mu.Unlock()
		return m.Share(ctx, one)
	}
	g, ctx := errgroup.WithContext(ctx)
	if !m.Temporary() {
		g.Go(func() error { return finish(ctx, first) })
	}
	for _, region := range m.CopyTo() {
		g.Go(func() error {
			one, err := m.Copy(ctx, first, region, labels)
			if err != nil {
				return err
			}
			return finish(ctx, one)
		})
	}
	err := g.Wait()
	return made, err
}

// Artifact describes the images that a builder has made. data are the values of
// build.*, of which it gets those that are no secret: artifacts are written to
// files.
func Artifact(builderID string, made []Made, data map[string]any) *builder.Artifact {
	slices.SortFunc(made, func(a, b Made) int { return strings.Compare(a.Region, b.Region) })
	a := &builder.Artifact{BuilderID: builderID, Images: map[string]string{}, Data: maps.Clone(data)}
	for _, secret := range []string{"Password", "SSHPrivateKey"} {
		delete(a.Data, secret)
	}
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
