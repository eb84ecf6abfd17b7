package images

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
)

// byBake begins the descriptions that bake gives to parameters when it moves channels.
const byBake = "bake: "

// usersTime is how long services are asked at most, which may not be reached from here.
const usersTime = 30 * time.Second

// Users finds out what uses images of the account that are to give way to new ones of the
// same name. One that is held, or that a channel names which bake has moved, must stay; so
// must an image of bake's if it cannot be found out what channels name. What else uses them
// is told as far as the credentials may ask.
func Users(ctx context.Context, session *access.Session, region string, found []types.Image) (all []access.Use) {
	ctx, cancel := context.WithTimeout(ctx, usersTime)
	defer cancel()
	a := &Account{ID: session.Account, Regions: []string{region}, session: session, page: pageSize}
	var images []Image
	for _, i := range found {
		images = append(images, imageOf(region, i))
	}
	l := a.newLook(region, images, Guards{})
	l.held()
	l.launchers(ctx, map[string]func(context.Context) error{GuardInstances: l.instances, GuardChannel: l.moved})
	l.resolve(ctx)
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
			by := access.Use{Image: i.ID, By: u.User, Must: u.Guard == GuardHeld || u.Guard == GuardChannel && !u.past}
			if by.Must && u.Guard == GuardChannel && !u.Unknown {
				by.By = "a channel names it, the " + u.User
			}
			all = append(all, by)
		}
	}
	return all
}

// moved finds the images that channels name which bake has moved, and those that they named
// before.
func (l *look) moved(ctx context.Context) error {
	in := map[string]any{"MaxResults": 50, "ParameterFilters": []map[string]any{{"Key": "DataType", "Option": "Equals", "Values": []string{imageType}}}}
	var names []string
	err := parameterPages(ctx, l.a.session.SSM(l.region), "DescribeParameters", in, func(p parameterVersion) {
		if strings.HasPrefix(p.Description, byBake) {
			names = append(names, p.Name)
		}
	})
	if err != nil || len(names) == 0 {
		return err
	}
	return l.naming(ctx, slices.Sorted(slices.Values(names)))
}
