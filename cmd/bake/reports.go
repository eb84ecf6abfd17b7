package main

import (
	"context"
	"strings"

	"bake/builder/amazon/images"
	"bake/golden/reports"
	"bake/internal/s3uri"
)

// reportsOf returns the store of the reports about an image with these tags: a place named
// in a flag, which may be in a bucket of the account, or the directory next to the log of
// their run.
func (p *program) reportsOf(ctx context.Context, a *images.Account, place string, tags map[string]string) (reports.Store, error) {
	if place != "" && !strings.HasPrefix(place, s3uri.Scheme) {
		return reports.Store{Dir: place}, nil
	}
	state, err := p.env.state()
	if err != nil {
		return reports.Store{}, err
	}
	store := reports.Store{Dir: state.Reports(reports.RunOf(tags))}
	if place != "" {
		bucket, err := a.Bucket(ctx, place)
		if err != nil {
			return store, err
		}
		store.Bucket = bucket
	}
	return store, nil
}
