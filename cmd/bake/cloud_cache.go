package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"bake/internal/local"
	"bake/internal/prose"
	"bake/run/localcloud"
	"bake/ui"
)

type cloudCacheOptions struct {
	region       string
	clear, prune bool
	limit        bytesFlag
	olderThan    age
}

func (p *program) cloudCacheCommand() *cobra.Command {
	var o cloudCacheOptions
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "List or delete the cached machines of bake build -local -cache",
		Long: fmt.Sprintf(`List the machines that 'bake build -local -cache' has cached after provisioners, most
recently used first, with their sizes without the base. A later -cache build starts from
the last one whose provisioners have not changed. At most %d machines are cached, for at
most %d days, and a build shrinks the cache to %s or its -cache-limit.

-prune deletes those selected by -older-than, and the least recently used ones until the
others are within the limit; -clear deletes all. Machines that are in use are kept.`, localcloud.CacheImages, int(localcloud.CacheAge.Hours()/24), ui.Bytes(localcloud.CacheBytes)),
		Example: `  bake cloud cache
  bake cloud cache -prune -cache-limit 2GB
  bake cloud cache -prune -older-than 2d
  bake cloud cache -clear`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			to, err := o.bounds(p.env)
			if err != nil {
				return err
			}
			return p.withLocal(cmd.Context(), "", "", func(ctx context.Context, c *localcloud.Cloud) error {
				return p.cloudCache(ctx, &localcloud.Cache{Cloud: c, Now: p.now}, o.region, to)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.region, "region", local.DefaultRegion, "the `region` of the local cloud")
	flags.BoolVar(&o.clear, "clear", false, "delete them all")
	flags.BoolVar(&o.prune, "prune", false, "delete machines that are too old or exceed the limit")
	flags.Var(&o.limit, "cache-limit", "with -prune: shrink the cache to this `size`, deleting the least recently used machines first; default 10GB")
	flags.Var(&o.olderThan, "older-than", "with -prune: delete machines of at least this `age`, such as 24h or 7d")
	p.jsonFlag(cmd)
	return cmd
}

// bounds returns the limits to trim the cache to; without any, the cache is listed.
func (o *cloudCacheOptions) bounds(env environ) (to localcloud.Bounds, err error) {
	switch {
	case o.clear && (o.prune || o.limit > 0 || o.olderThan > 0):
		return to, usageError{"-clear deletes everything: it cannot be combined with -prune, -cache-limit or -older-than", "bake cloud cache"}
	case o.clear:
		return localcloud.Bounds{None: true}, nil
	case !o.prune && (o.limit > 0 || o.olderThan > 0):
		return to, usageError{"-cache-limit and -older-than require -prune", "bake cloud cache"}
	case !o.prune:
		return to, nil
	}
	limit, err := env.cacheLimit(o.limit)
	return localcloud.Bounds{Bytes: cmp.Or(limit, localcloud.CacheBytes), Age: time.Duration(o.olderThan)}, err
}

func (p *program) cloudCache(ctx context.Context, cache *localcloud.Cache, region string, to localcloud.Bounds) error {
	if to != (localcloud.Bounds{}) {
		n, err := cache.Trim(ctx, region, to)
		p.json.result = struct {
			Deleted int `json:"deleted"`
		}{n}
		if err == nil {
			p.say(fmt.Sprintf("Machines deleted from the cache: %d", n))
		}
		return err
	}
	all, err := cache.List(ctx, region)
	if err != nil {
		return err
	}
	if p.json.on {
		p.json.result = struct {
			Machines []localcloud.Cached `json:"machines"`
			Bytes    int64               `json:"bytes"`
		}{all, localcloud.Bytes(all)}
		return nil
	}
	if len(all) == 0 {
		fmt.Fprintln(p.stdout, "No machines.")
		return nil
	}
	table := prose.NewTable("ID", "CREATED", "USED", "SIZE", "MACHINE")
	for _, i := range all {
		table.Row(i.ID, i.Created.Format(cacheTime), i.Used.Format(cacheTime), ui.Bytes(i.Bytes), i.About)
	}
	p.say(table.Within(p.stdout.columns()))
	p.say(prose.Count(len(all), "machine") + ": " + ui.Bytes(localcloud.Bytes(all)))
	return nil
}

const cacheTime = "2006-01-02T15:04:05"
