package images

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Instance is an instance of the account with the image that it was launched from, as
// -json writes it. EC2 reports that image even if it no longer exists.
type Instance struct {
	ID       string    `json:"id"`
	Region   string    `json:"region"`
	State    string    `json:"state"`
	Type     string    `json:"instance_type"`
	Launched time.Time `json:"launched"`

	Image           string     `json:"image"`
	ImageName       string     `json:"image_name,omitempty"`
	ImageOwner      string     `json:"image_owner,omitempty"`
	ImageState      string     `json:"image_state"` // as EC2 has it; deregistered: it is gone
	ImageDeprecated *time.Time `json:"image_deprecated,omitempty"`
	ImageAllowed    *bool      `json:"image_allowed,omitempty"` // by the account's Allowed AMIs; absent if that is off
}

// Note describes any problem with the image, for people; empty if there is none.
func (i Instance) Note(now time.Time) string {
	switch {
	case i.ImageState == string(types.ImageStateDeregistered):
		return "runs on an image that no longer exists"
	case i.ImageState != string(types.ImageStateAvailable):
		return "the image is " + i.ImageState
	case i.ImageAllowed != nil && !*i.ImageAllowed:
		return "the image is not one of the account's Allowed AMIs"
	case i.ImageDeprecated != nil && !now.Before(*i.ImageDeprecated):
		return "the image is deprecated"
	}
	return ""
}

// Instances lists the instances of the account's regions that are not terminated, in the
// order of the regions. With an error, which joins a *[RegionError] for each region that
// could not be listed to its end, there are those of the other regions.
func (a *Account) Instances(ctx context.Context) ([]Instance, error) {
	return inRegions(ctx, a.Regions, a.instancesIn)
}

func (a *Account) instancesIn(ctx context.Context, region string) (all []Instance, err error) {
	params := url.Values{"MaxResults": {strconv.Itoa(int(a.page))}, "Filter.1.Name": {"instance-state-name"}}
	for n, state := range livingStates {
		params.Set("Filter.1.Value."+strconv.Itoa(n+1), state)
	}
	var page struct {
		Instances []struct {
			ID       string `xml:"instanceId"`
			Type     string `xml:"instanceType"`
			Launched string `xml:"launchTime"`
			State    string `xml:"instanceState>name"`
			Image    struct {
				ID         string `xml:"imageId"`
				Name       string `xml:"name"`
				Owner      string `xml:"imageOwnerId"`
				State      string `xml:"imageState"`
				Deprecated string `xml:"deprecationTime"`
				Allowed    *bool  `xml:"imageAllowed"`
			} `xml:"imageMetadata"`
		} `xml:"instanceImageMetadataSet>item"`
		Token string `xml:"nextToken"`
	}
	err = queryPages(ctx, a.session.EC2Query(region), "DescribeInstanceImageMetadata", params, &page, func() string {
		for _, i := range page.Instances {
			one := Instance{
				ID: i.ID, Region: region, State: i.State, Type: i.Type, Image: i.Image.ID, ImageName: i.Image.Name, ImageOwner: i.Image.Owner,
				ImageState: i.Image.State, ImageDeprecated: moment(&i.Image.Deprecated), ImageAllowed: i.Image.Allowed,
			}
			if launched := moment(&i.Launched); launched != nil {
				one.Launched = *launched
			}
			all = append(all, one)
		}
		return page.Token
	})
	if err != nil {
		return nil, err // an incomplete listing would look complete
	}
	return all, nil
}
