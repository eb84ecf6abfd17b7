package amazonbuild

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon/internal/access"
)

// former is the newest image of the account, in the build region, that has a tag and is not
// the one that was made just now; nil if there is none.
func (b *Build) former(ctx context.Context, made, tag, value string) (*builder.Former, error) {
	value = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(value) // which filters know as wildcards
	out, err := access.Call(ctx, b.client().DescribeImages, &ec2.DescribeImagesInput{
		Owners:  []string{"self"},
		Filters: []types.Filter{{Name: aws.String("tag:" + tag), Values: []string{value}}, {Name: aws.String("state"), Values: []string{string(types.ImageStateAvailable)}}},
	})
	if err != nil {
		return nil, err
	}
	var newest *types.Image
	for i := range out.Images {
		one := &out.Images[i]
		if aws.ToString(one.ImageId) != made && (newest == nil || aws.ToString(one.CreationDate) > aws.ToString(newest.CreationDate)) {
			newest = one
		}
	}
	if newest == nil {
		return nil, nil
	}
	f := &builder.Former{ID: aws.ToString(newest.ImageId), Name: aws.ToString(newest.Name), Tags: map[string]string{}}
	for _, t := range newest.Tags {
		f.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return f, nil
}
