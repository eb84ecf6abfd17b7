package images

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bake/builder"
)

// NamedBy are those of the images that a channel, which is a parameter, names or has named in
// their regions, and the IDs of those that it names now. It is an error if none of the
// account's regions has the channel.
func (a *Account) NamedBy(ctx context.Context, parameter string, all []Image) (named []Image, now []string, err error) {
	histories, err := a.NewOutlet(builder.Distribution{}, "").Histories(ctx, parameter)
	if err != nil {
		return nil, nil, err
	}
	if len(histories) == 0 {
		return nil, nil, fmt.Errorf("there is no channel %s in %s", parameter, strings.Join(a.Regions, ", "))
	}
	ever := map[string]bool{}
	for _, h := range histories {
		for i, e := range h.Entries {
			if ever[e.Image] = true; i == 0 {
				now = append(now, e.Image)
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(i Image) bool { return !ever[i.ID] }), now, nil
}
