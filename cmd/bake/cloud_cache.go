package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bake/internal/local"
	"bake/run/localcloud"
)

func (p *program) cloudCacheCommand() *cobra.Command {
	var region string
	var clear bool
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "List or clear the machines that bake build -local -cache begins from",
		Long: fmt.Sprintf(`List the machines that 'bake build -local -cache' has kept after provisioners, the newest
first. A later -cache build whose provisioners are unchanged up to one of them begins
there. At most %d are kept, for at most %d days; -clear deletes them all at once.`, localcloud.CacheImages, int(localcloud.CacheAge.Hours()/24)),
		Example: `  bake cloud cache
  bake cloud cache -clear`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.withLocal(cmd.Context(), "", "", func(ctx context.Context, c *localcloud.Cloud) error {
				return p.cloudCache(ctx, localcloud.Cache{Cloud: c, Now: p.now}, region, clear)
			})
		},
	}
	cmd.Flags().StringVar(&region, "region", local.DefaultRegion, "the `region` of the local cloud")
	cmd.Flags().BoolVar(&clear, "clear", false, "delete them")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) cloudCache(ctx context.Context, cache localcloud.Cache, region string, clear bool) error {
	if clear {
		n, err := cache.Trim(ctx, region, 0)
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
		}{append([]localcloud.Cached{}, all...)} // not null where there are none
		return nil
	}
	if len(all) == 0 {
		fmt.Fprintln(p.stdout, "No machines.")
		return nil
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ID\tCREATED\tMACHINE")
	for _, i := range all {
		fmt.Fprintf(w, "%s\t%.19s\t%s\n", i.ID, i.Created, i.About)
	}
	return w.Flush()
}
