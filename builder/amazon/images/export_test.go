package images

// SetPage makes pages of n things.
func (a *Account) SetPage(n int32) { a.page = n }
