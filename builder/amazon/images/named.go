package images

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"bake/builder"
)

// NamedBy are those of the images that a channel, which is a parameter, names or has named in
// their regions, and the IDs of those that it names now. It is an [ErrNoChannel] if none of the
// account's regions has the channel. What other regions tell is returned with the error of one
// that does not answer.
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
