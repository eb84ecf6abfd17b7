package wire

import (
	"context"
	"net/http"
	"strconv"
)

// Deliver calls answer with w or, if [WithDelivery] has set another delivery in ctx, with a writer
// that delivers only part of the answer. In the latter case it panics with [http.ErrAbortHandler],
// which closes the connection.
func Deliver(ctx context.Context, w http.ResponseWriter, answer func(http.ResponseWriter)) {
	delivery, _ := ctx.Value(deliveryKey{}).(Delivery)
	if delivery == Delivered {
		answer(w)
		return
	}
	cut := &cutAnswer{ResponseWriter: w, header: http.Header{}, lost: delivery == Lost}
	answer(cut)
	panic(http.ErrAbortHandler)
}

// cutAnswer passes on half of an answer's body, or nothing.
type cutAnswer struct {
	http.ResponseWriter
	header http.Header
	lost   bool
	begun  bool
	status int
	left   int64 // bytes still to pass on
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
		if err != nil { // p is the whole answer
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
		_ = http.NewResponseController(c.ResponseWriter).Flush() // an error does not matter: the connection is closed anyway
		panic(http.ErrAbortHandler)
	}
	return len(p), nil
}
