package images

// SetPage makes pages of n things.
func (a *Account) SetPage(n int32) { a.page = n }

// Decide is what is to become of images if nothing uses them.
func Decide(all []Image, o PruneOptions) (out []Planned) {
	for _, g := range grouped(all, o.Together) {
		for _, c := range g.decide(o) {
			c.Action = c.want
		}
		for _, i := range g.images {
			out = append(out, *i)
		}
	}
	return out
}
