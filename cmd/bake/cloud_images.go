package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/spf13/cobra"

	"bake/internal/local"
	"bake/run/localcloud"
)

func (p *program) cloudImagesCommand() *cobra.Command {
	var region string
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List the images that can be launched",
		Long: `List the images of the local cloud that can be launched in a region, with their ids
and names. These include the base images that bake can make; each one is made when it
is first launched.`,
		Example: `  bake cloud images`,
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.cloudImages(cmd.Context(), region) },
	}
	cmd.Flags().StringVar(&region, "region", local.DefaultRegion, "list the images in this `region`")
	p.jsonFlag(cmd)
	return cmd
}

// listedImage is an image as bake cloud images -json writes it.
type listedImage struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Owner       string            `json:"owner"`
	State       string            `json:"state"`
	Created     string            `json:"created"`
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
}

func (p *program) cloudImages(ctx context.Context, region string) error {
	return p.withLocal(ctx, "", func(ctx context.Context, c *localcloud.Cloud) error {
		images, err := listImages(ctx, c.EC2(region))
		if err != nil {
			return err
		}
		if p.json.on {
			p.json.result = struct {
				Images []listedImage `json:"images"`
			}{images}
			return nil
		}
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ID\tOWNER\tCREATED\tSTATE\tNAME")
		for _, i := range images {
			fmt.Fprintf(w, "%s\t%s\t%.10s\t%s\t%s\n", i.ID, i.Owner, i.Created, i.State, i.Name)
		}
		return w.Flush()
	})
}

// listImages returns every image in the client's region, oldest first.
func listImages(ctx context.Context, client *ec2.Client) ([]listedImage, error) {
	images := []listedImage{}
	out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{})
	if err != nil {
		return nil, err
	}
	for _, i := range out.Images {
		images = append(images, listed(i))
	}
	slices.SortFunc(images, func(a, b listedImage) int { return strings.Compare(a.Created+a.Name, b.Created+b.Name) })
	return images, nil
}

func listed(i types.Image) listedImage {
	tags := map[string]string{}
	for _, t := range i.Tags {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return listedImage{
		ID: aws.ToString(i.ImageId), Name: aws.ToString(i.Name), Owner: aws.ToString(i.OwnerId),
		State: string(i.State), Created: aws.ToString(i.CreationDate), Description: aws.ToString(i.Description), Tags: tags,
	}
}
