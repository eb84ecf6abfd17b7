package wire

import "fmt"

// Message is a call or an answer that is passed on.
type Message struct {
	Method string
	Seq    uint64
	Error  string // of an answer
	Body   any    // the arguments or the reply
	Raw    []byte // the complete message, unchanged
}

// ReadMessage reads a whole call or answer. If there is an error, Raw holds the bytes that
// were read before it.
func ReadMessage(r Reader) (Message, error) {
	c := &capture{r: r}
	var head response
	body, _, err := readMessage(c, &head)
	return Message{Method: head.ServiceMethod, Seq: head.Seq, Error: head.Error, Body: body, Raw: c.read}, err
}

// capture records the bytes that are read.
type capture struct {
	r    Reader
	read []byte
}

func (c *capture) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.read = append(c.read, b[:n]...)
	return n, err
}

func (c *capture) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.read = append(c.read, b)
	}
	return b, err
}

// Request encodes a call, for a relay that makes its own calls.
func Request(method string, seq uint64, args any) ([]byte, error) {
	head, err := marshal(request{method, seq})
	if err != nil {
		return nil, err
	}
	body, err := marshal(args)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	return append(head, body...), nil
}
