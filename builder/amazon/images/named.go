package images

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bake/builder"
)

// NamedBy returns the images in all that a channel, which is a parameter, names now or
// named before in their regions, and the IDs of those that it names now. The error is an
// [ErrNoChannel] if none of the account's regions has the channel. If a region fails, the
// results of the others are returned with the error.
func (a *Account) NamedBy(ctx context.Context, parameter string, all []Image) (named []Image, now []string, err error) {
	histories, err := a.NewDistributor(builder.Distribution{}, "").Histories(ctx, parameter)
	if len(histories) == 0 && err == nil {
		err = fmt.Errorf("%w %s in %s", ErrNoChannel, parameter, strings.Join(a.Regions, ", "))
	}
	ever := map[string]bool{}
	for _, h := range histories {
		for i, e := range h.Entries {
			if ever[e.Image] = true; i == 0 {
				now = append(now, e.Image)
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(i Image) bool { return !ever[i.ID] }), now, err
}
