package sourceami

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder/amazon/internal/ownership"
)

// offered is the maximum number of images listed for each owner.
const offered = 5

// offer lists the existing images, for the error if none matches. It is for a cloud
// with few images. The text starts with a space, and is empty if the cloud does not
// list them.
func offer(ctx context.Context, client *ec2.Client) string {
	out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{})
	if err != nil {
		return ""
	}
	names := map[string][]string{}
	var owners []string
	for _, i := range out.Images {
		if slices.ContainsFunc(i.Tags, ownership.Cached) {
			continue
		}
		owner := aws.ToString(i.OwnerId)
		if names[owner] == nil {
			owners = append(owners, owner)
		}
		names[owner] = append(names[owner], aws.ToString(i.Name))
	}
	slices.Sort(owners)
	var has []string
	for _, owner := range owners {
		all := names[owner]
		slices.Sort(all)
		text := strings.Join(all[:min(offered, len(all))], ", ")
		if more := len(all) - offered; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		has = append(has, fmt.Sprintf("of owner %s: %s", owner, text))
	}
	if has == nil {
		has = []string{"none in this region"}
	}
	return fmt.Sprintf(" This is the local cloud. Its images are %s. To add another, such as an Ubuntu image, see 'bake cloud import -h'.", strings.Join(has, "; "))
}
