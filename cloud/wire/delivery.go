package wire

import (
	"context"
	"net/http"
	"strconv"
)

// Deliver has answer write to w what is to arrive of its answer, according to the fate
// that ctx has for it: see [WithDelivery]. It panics with [http.ErrAbortHandler], which
// closes the connection, unless that is all.
func Deliver(ctx context.Context, w http.ResponseWriter, answer func(http.ResponseWriter)) {
	fate, _ := ctx.Value(deliveryKey{}).(Delivery)
	if fate == Delivered {
		answer(w)
		return
	}
	cut := &cutAnswer{ResponseWriter: w, header: http.Header{}, lost: fate == Lost}
	answer(cut)
	panic(http.ErrAbortHandler)
}

// cutAnswer lets half of an answer's body through, or nothing.
type cutAnswer struct {
	http.ResponseWriter
	header http.Header
	lost   bool
	begun  bool
	status int
	left   int64 // bytes that go through
}

// Header implements [http.ResponseWriter].
func (c *cutAnswer) Header() http.Header { return c.header }

// WriteHeader implements [http.ResponseWriter].
func (c *cutAnswer) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
}

// Write implements [http.ResponseWriter].
func (c *cutAnswer) Write(p []byte) (int, error) {
	if c.lost {
		return len(p), nil
	}
	if !c.begun {
		c.begun = true
		size, err := strconv.ParseInt(c.header.Get("Content-Length"), 10, 64)
		if err != nil { // the whole answer is in this text
			size = int64(len(p))
			c.header.Set("Content-Length", strconv.FormatInt(size, 10))
		}
		for name, values := range c.header {
			c.ResponseWriter.Header()[name] = values
		}
		c.left = size / 2
		c.ResponseWriter.WriteHeader(max(c.status, http.StatusOK))
	}
	part := p[:min(int64(len(p)), c.left)]
	c.left -= int64(len(part))
	n, err := c.ResponseWriter.Write(part)
	if err != nil {
		return n, err
	}
	if c.left == 0 {
		_ = http.NewResponseController(c.ResponseWriter).Flush() // the connection is closed anyway
		panic(http.ErrAbortHandler)
	}
	return len(p), nil
}
