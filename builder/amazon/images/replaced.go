package images

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
)

// usersTime limits all queries of services, which may not be reachable from here, and
// informTime those whose answers are only informative.
const (
	usersTime  = 30 * time.Second
	informTime = 5 * time.Second
)

// Users finds what uses images of the account that will be replaced by new ones of the
// same name. An image that is held, or that is named by a channel which bake has moved,
// must stay; so must an image of bake if the channels cannot be read. Other uses are
// reported as far as the credentials permit and the services answer quickly; with must,
// they are not queried.
func Users(ctx context.Context, session *access.Session, region string, found []types.Image, must bool) (all []access.Use) {
	soon, cancel := context.WithTimeout(ctx, informTime)
	defer cancel()
	ctx, cancelAll := context.WithTimeout(ctx, usersTime)
	defer cancelAll()
	a := &Account{ID: session.Account, Regions: []string{region}, session: session, page: pageSize}
	var images []Image
	for _, i := range found {
		images = append(images, imageOf(region, i))
	}
	l := a.newUsageScan(region, images, Guards{})
	var late []string
	l.onFailure = func(guard string, _ error) {
		if guard != GuardChannel && soon.Err() != nil {
			late = append(late, guard)
		}
	}
	l.held()
	var each sync.WaitGroup
	each.Go(func() {
		names, current, err := l.moved(ctx)
		l.unless(GuardChannel, err)
		if err == nil && !must && l.previous(soon, names, current) != nil && soon.Err() != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			late = append(late, "previous values of channels")
		}
	})
	if !must {
		each.Go(func() {
			l.launchers(soon, map[string]func(context.Context) error{GuardInstances: l.instances})
		})
	}
	each.Wait()
	l.resolve(soon)
	unknown := l.failed[GuardChannel]
	clear(l.failed)
	for _, i := range images {
		if unknown != "" && i.Tags[ImageTag] != "" {
			l.use(i.ID, Use{Guard: GuardChannel, User: "whether a channel names it is not known: " + unknown, Unknown: true})
		}
	}
	l.finish()
	for _, i := range images {
		for _, u := range l.uses[i.ID] {
			by := access.Use{Image: i.ID, By: u.User, Unknown: u.Unknown, Must: u.Guard == GuardHeld || u.Guard == GuardChannel && !u.past}
			if by.Must && u.Guard == GuardChannel && !u.Unknown {
				by.By = "a channel names it, the " + u.User
			}
			all = append(all, by)
		}
		if len(late) > 0 {
			slices.Sort(late)
			all = append(all, access.Use{Image: i.ID, By: "it was not found out in time who uses it: " + strings.Join(late, ", "), Unknown: true})
		}
	}
	return all
}

// moved finds the images that channels name which bake has moved. It returns the parameters
// of these channels and their values.
func (l *usageScan) moved(ctx context.Context) (names []string, current map[string]parameterVersion, err error) {
	in := map[string]any{"MaxResults": 50, "ParameterFilters": []map[string]any{{"Key": "DataType", "Option": "Equals", "Values": []string{imageType}}}}
	err = parameterPages(ctx, l.a.session.SSM(l.region), "DescribeParameters", in, func(p parameterVersion) {
		if strings.HasPrefix(p.Description, byBake) {
			names = append(names, p.Name)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(names)
	current, err = l.current(ctx, names)
	return names, current, err
}
