package sandbox

import (
	"errors"
	"os"
	"sync"
)

const (
	consoleMax  = 4 << 20  // size limit of a console's file, in bytes
	consoleKept = 64 << 10 // bytes kept when it is full, as many as EC2 shows
)

// consoleLog appends to the file of a console. Since a machine can write any amount, only the end
// is kept when the file is full.
type consoleLog struct {
	file *os.File // opened for appending

	mu   sync.Mutex
	last []byte
}

func (c *consoleLog) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(b)
}

// writeLines writes text at the start of a line, whatever was written before.
func (c *consoleLog) writeLines(text string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.last); n > 0 && c.last[n-1] != '\n' {
		text = "\n" + text
	}
	_, err := c.write([]byte(text))
	return err
}

func (c *consoleLog) write(b []byte) (int, error) {
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
