package sandbox

import (
	"errors"
	"os"
)

const (
	consoleMax  = 4 << 20  // bytes in a console's file
	consoleKept = 64 << 10 // those that stay when it is full, as many as EC2 shows
)

// consoleLog appends to the file of a console, which a machine can write without
// end: when it is full only its end stays.
type consoleLog struct {
	file *os.File // opened to append
	last []byte
}

func (c *consoleLog) Write(b []byte) (int, error) {
	c.last = append(c.last, b...)
	c.last = c.last[max(0, len(c.last)-consoleKept):]
	info, err := c.file.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size()+int64(len(b)) <= consoleMax {
		return c.file.Write(b)
	}
	err = c.file.Truncate(0)
	_, werr := c.file.Write(c.last)
	return len(b), errors.Join(err, werr)
}
