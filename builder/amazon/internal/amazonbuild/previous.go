package amazonbuild

import (
	"context"

	"bake/builder"
	"bake/internal/imagetag"
)

// previous returns the newest image of the account, in the build region, that has a tag
// and is not the one that was just made; nil if there is none.
func (b *Build) previous(ctx context.Context, made, tag, value string) (*builder.PreviousImage, error) {
	all, err := b.tagged(ctx, b.Session.Region, tag, value)
	if err != nil {
		return nil, err
	}
	var newest *builder.ExistingImage
	for i := range all {
		if one := &all[i]; one.ID != made && (newest == nil || imagetag.Order(order(one), order(newest)) > 0) {
			newest = one
		}
	}
	if newest == nil {
		return nil, nil
	}
	return &builder.PreviousImage{ID: newest.ID, Name: newest.Name, Tags: newest.Tags}, nil
}

func order(i *builder.ExistingImage) imagetag.Made {
	return imagetag.Made{Created: i.Created, Tags: i.Tags, ID: i.ID}
}
