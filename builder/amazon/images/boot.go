package images

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/launch"
	"bake/step"
)

// BootOptions define which machine is launched from an image, and how to log in to it.
type BootOptions struct {
	InstanceType string // "": the smallest that fits the image
	User         string // "": the known login user of the image or its ancestors
	Subnet       string // "": one of the default VPC
	Interface    string // one of Interfaces; "": the public address, or the private one if there is none
}

// Interfaces returns the kinds of addresses by which one can log in to a machine.
func Interfaces() (all []string) {
	for _, i := range launch.Interface("").Choices() {
		if i != string(launch.SessionManager) { // which needs an instance profile
			all = append(all, i)
		}
	}
	return all
}

// Boot launches a machine from the image that ref names, with a temporary key and security
// group and without user data. It calls use when login is possible, and always deletes the
// machine, key and group. The image must be in the region in which the account was opened.
func (a *Account) Boot(ctx context.Context, s *step.Scope, ref string, o BootOptions, use func(context.Context, Image, builder.Machine) error) error {
	i, err := a.One(ctx, ref)
	if err != nil {
		return err
	}
	if i.Region != a.home() {
		return fmt.Errorf("image %s is in %s, and not in %s: name its region with -region", i.ID, i.Region, a.home())
	}
	if i.State != string(types.ImageStateAvailable) {
		return fmt.Errorf("image %s is %s: no machine of it can be launched", i.ID, i.State)
	}
	g := amazonbuild.Guest{Boot: builder.Boot{InstanceType: o.InstanceType, User: o.User}, Subnet: o.Subnet, Interface: launch.Interface(o.Interface)}
	if g.InstanceType == "" {
		g.InstanceType = i.smallest()
	}
	if g.User == "" {
		if g.User, err = a.user(ctx, i); err != nil {
			return err
		}
	}
	return g.Run(ctx, s, a.session, i.ID, func(ctx context.Context, m builder.Machine) error { return use(ctx, i, m) })
}

// smallest returns a small instance type that can run the image.
func (i Image) smallest() string {
	switch {
	case strings.HasPrefix(i.Architecture, "arm64"):
		return "t4g.micro"
	case !i.ENA: // which newer types need
		return "t2.micro"
	}
	return "t3.micro"
}

// user returns the login user of the image: from its tag or its publisher, or from those of
// its ancestors.
func (a *Account) user(ctx context.Context, i Image) (string, error) {
	known := func(owner, name string, tags map[string]string) string {
		image := types.Image{OwnerId: &owner, Name: &name}
		for k, v := range tags {
			image.Tags = append(image.Tags, types.Tag{Key: aws.String(k), Value: aws.String(v)})
		}
		return launch.LoginUser(image)
	}
	if user := known(i.Owner, i.Name, i.Tags); user != "" {
		return user, nil
	}
	lineage, err := a.Lineage(ctx, i)
	for _, from := range lineage {
		if user := known(from.Owner, from.Name, nil); user != "" {
			return user, nil
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return "", cause
	}
	text := fmt.Sprintf("the login user of image %s is unknown: neither its tag bake:user nor its publisher tells; set it with -user", i.ID)
	if err != nil {
		return "", fmt.Errorf("%s (its source cannot be determined: %w)", text, err)
	}
	return "", errors.New(text)
}
