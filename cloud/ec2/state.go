package ec2

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/durable"
	"bake/cloud/wire"
)

// state is the service's state, in memory and on disk. It is only accessed through the
// service's update and view, so its methods run with the lock held. They must not wait for
// machines. They cannot lock again: they have no access to the service except through
// start and background.
type state struct {
	*env
	start func(func(*Service)) // runs a function after the lock is released; Close waits for it

	closed    bool
	images    *table[image]
	snapshots *table[snapshot]
	volumes   *table[volumeRow]
	instances *table[instance]
	keys      *table[keyPair]
	groups    *table[group]
	imports   *table[importTask]
	stores    *table[storeTask]
	exports   *table[exportTask]
	networks  *table[networking]
	templates *table[launchTemplate]
	spots     *table[spotRequest]
	fleets    *table[fleet]
	foreign   *table[foreignTags] // keyed by ACCOUNT.RESOURCE
	graves    *table[tombstone]
	usage     *table[usageReport]
	settings  *table[settings]   // see settingsID
	recycled  *table[discarded]  // the recycle bin
	tables    []taggable         // all of them
	runners   map[string]*runner // by instance
	disks     map[string]*sync.Mutex
	hidden    map[string]int // in how many more calls an id must not be found
	looked    bool           // the current action is called by a client that only displays the state
	policies  map[string]*policy
	exporting map[string]context.CancelCauseFunc // by task
	kept      map[string][]contents              // by task; see [state.keep]

	collecting bool // a further collection of layers is scheduled
}

// openState reads the state in the service's directory.
func openState(e *env, start func(func(*Service))) (*state, error) {
	s := &state{env: e, start: start, runners: map[string]*runner{}, disks: map[string]*sync.Mutex{},
		hidden: map[string]int{}, policies: map[string]*policy{}, exporting: map[string]context.CancelCauseFunc{}, kept: map[string][]contents{}}
	return s, errors.Join(
		register(s, "images", kindImage, &s.images, func(_ string, r *image) about {
			return about{*r.OwnerId, r.Region, func(account string) bool { return s.launchable(r, account) }, []part{{kindImage, r.ImageId, &r.Tags}}}
		}),
		register(s, "snapshots", kindSnapshot, &s.snapshots, func(_ string, r *snapshot) about {
			return about{*r.OwnerId, r.Region, func(account string) bool { return s.visible(r, account) }, []part{{kindSnapshot, r.SnapshotId, &r.Tags}}}
		}),
		register(s, "volumes", kindVolume, &s.volumes, func(_ string, r *volumeRow) about {
			return about{r.Account, r.Region, nil, []part{{kindVolume, r.VolumeId, &r.Tags}}}
		}),
		register(s, "instances", kindInstance, &s.instances, func(_ string, r *instance) about {
			all := []part{{kindInstance, r.InstanceId, &r.Tags}}
			for _, n := range r.NetworkInterfaces {
				all = append(all, part{kindInterface, n.NetworkInterfaceId, &r.InterfaceTags})
			}
			return about{r.OwnerId, r.Region, nil, all}
		}),
		register(s, "key-pairs", kindKey, &s.keys, func(_ string, r *keyPair) about {
			return about{r.OwnerId, r.Region, nil, []part{{kindKey, r.KeyPairId, &r.Tags}}}
		}),
		register(s, "security-groups", kindGroup, &s.groups, func(_ string, r *group) about {
			all := []part{{kindGroup, r.GroupId, &r.Tags}}
			for i := range r.Rules {
				all = append(all, part{kindRule, r.Rules[i].SecurityGroupRuleId, &r.Rules[i].Tags})
			}
			return about{*r.OwnerId, r.Region, nil, all}
		}),
		register(s, "imports", kindImport, &s.imports, func(_ string, r *importTask) about {
			return about{r.Account, r.Region, nil, []part{{kindImport, r.ImportTaskId, &r.Tags}}}
		}),
		register(s, "store-tasks", nil, &s.stores, func(_ string, r *storeTask) about {
			return about{account: r.Account, region: r.Region}
		}),
		register(s, "exports", kindExport, &s.exports, func(_ string, r *exportTask) about {
			return about{r.Account, r.Region, nil, []part{{kindExport, r.ExportImageTaskId, &r.Tags}}}
		}),
		register(s, "networks", kindVpc, &s.networks, func(id string, r *networking) about {
			account, region, _ := strings.Cut(id, ".")
			return about{account, region, nil, r.parts()}
		}),
		register(s, "launch-templates", kindTemplate, &s.templates, func(_ string, r *launchTemplate) about {
			return about{r.Account, r.Region, nil, []part{{kindTemplate, r.LaunchTemplateId, &r.Tags}}}
		}),
		register(s, "spot-requests", kindSpot, &s.spots, func(_ string, r *spotRequest) about {
			return about{r.Account, r.Region, nil, []part{{kindSpot, r.SpotInstanceRequestId, &r.Tags}}}
		}),
		register(s, "fleets", nil, &s.fleets, func(_ string, r *fleet) about {
			return about{account: r.Account, region: r.Region}
		}),
		register(s, "deregistered-images", nil, &s.graves, func(_ string, r *tombstone) about {
			return about{account: *r.OwnerId, region: r.Region}
		}),
		register(s, "image-usage-reports", kindUsage, &s.usage, func(_ string, r *usageReport) about {
			return about{r.Account, r.Region, nil, []part{{kindUsage, r.ReportId, &r.Tags}}}
		}),
		register(s, "settings", nil, &s.settings, func(_ string, r *settings) about {
			return about{account: r.Account, region: r.Region}
		}),
		register(s, "recycle-bin", nil, &s.recycled, func(_ string, r *discarded) about {
			account, region := r.whose()
			return about{account: account, region: region}
		}),
		register(s, "foreign-tags", nil, &s.foreign, func(_ string, r *foreignTags) about {
			return about{account: r.Account, region: r.Region}
		}),
	)
}

// background is like start, for work that is left to the next Open if Close has begun. The context
// ends with the service.
func (s *state) background(f func(context.Context, *Service)) {
	if !s.closed {
		s.start(func(svc *Service) { f(svc.ctx, svc) })
	}
}

// table holds the rows of one kind, by id.
type table[T any] struct {
	*durable.Table[T]
	s     *state
	kind  *kind
	about func(id string, row *T) about
}

// about is the part of a row that all tables have in common.
type about struct {
	account, region string                    // owner and region
	shared          func(account string) bool // whether it is shared with the account; nil means with none
	parts           []part
}

// part is a row, or a part of one, that has tags.
type part struct {
	kind *kind
	id   *string
	tags *[]types.Tag
}

// register opens the table of a kind in the service's directory.
func register[T any](s *state, dir string, k *kind, into **table[T], of func(id string, row *T) about) error {
	t, err := durable.OpenTable[T](filepath.Join(s.opts.Dir, dir), s.opts.Wrote)
	if err != nil {
		return err
	}
	*into = &table[T]{t, s, k, of}
	s.tables = append(s.tables, *into)
	return nil
}

// of returns the caller's rows, sorted by id.
func (t *table[T]) of(c wire.Caller) (out []*T) {
	for _, id := range t.IDs() {
		if a := t.about(id, t.Rows[id]); a.account == c.Account && a.region == c.Region {
			out = append(out, t.Rows[id])
		}
	}
	return out
}

// named returns the caller's row with that name, or nil. It does not sort the rows: it
// runs for every new image, over all images.
func (t *table[T]) named(c wire.Caller, name string) *T {
	for id, row := range t.Rows {
		if t.kind.name(row) != name {
			continue
		}
		if a := t.about(id, row); a.account == c.Account && a.region == c.Region {
			return row
		}
	}
	return nil
}

// find returns the row with that id, which the caller owns or which is shared with it.
func (t *table[T]) find(c wire.Caller, id *string) (*T, error) {
	if aws.ToString(id) == "" {
		return nil, missing(t.kind.field)
	}
	if err := t.kind.check(*id); err != nil {
		return nil, err
	}
	row, ok := t.Get(*id)
	if !ok || !t.about(*id, row).seen(c) || len(t.s.concealed([]string{*id})) > 0 {
		return nil, t.kind.notFound(*id)
	}
	return row, nil
}

// seen reports whether the row is visible to the caller.
func (a about) seen(c wire.Caller) bool {
	return a.region == c.Region && (a.account == c.Account || a.shared != nil && a.shared(c.Account))
}

// newID returns an id in EC2's form: prefix, a hyphen, 17 hexadecimal digits.
func newID(prefix string) string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + "-0" + hex.EncodeToString(b[:])[:16]
}
