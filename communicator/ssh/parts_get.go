package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"

	"bake/communicator"
)

// remoteFile is a regular file of the machine.
type remoteFile struct {
	size int64
	mode fs.FileMode
}

// fileFacts is a shell command that prints the remoteFile of a file, if the file is regular and
// readable, with its allocated blocks.
const fileFacts = `if [ -f %[1]s ] && [ -r %[1]s ]; then stat -Lc 'file %%s %%a %%b %%B' %[1]s 2>/dev/null; fi`

// maxInParts is the size of the largest file that is fetched in parts. A machine may report any
// size, and all parts are listed in advance.
const maxInParts = 1 << 40

// parseFacts parses the output of fileFacts. It returns false if the file cannot be fetched
// in parts.
func parseFacts(line string) (f remoteFile, ok bool) {
	words := strings.Fields(line)
	if len(words) != 5 || words[0] != "file" {
		return f, false
	}
	size, err := strconv.ParseInt(words[1], 10, 64)
	mode, err2 := strconv.ParseUint(words[2], 8, 32)
	blocks, err3 := strconv.ParseInt(words[3], 10, 64)
	each, err4 := strconv.ParseInt(words[4], 10, 32)
	if errors.Join(err, err2, err3, err4) != nil || size < 0 || size > maxInParts || blocks < 0 || each < 1 {
		return f, false
	}
	sparse := blocks < (size-partsFrom/2)/each
	return remoteFile{size, fs.FileMode(mode) & fs.ModePerm}, !sparse
}

// getParts fetches one large file in parts, over several sessions at once.
func (c *Client) getParts(ctx context.Context, from, name string, f remoteFile, workers int, dst *os.Root) (err error) {
	local, err := communicator.CreateFile(dst, name, f.mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, local.Finish(err)) }()
	m := newMeter(ctx, c.scope, nil)
	m.progress.Total = f.size
	q := &partQueue{todo: spansOf([]span{{0, f.size}}, f.size, workers), meter: m}
	// A shell expands "~" in p=~/x, but not in if=~/x.
	script := fmt.Sprintf(`p=%s; exec 3>&1; while read -r at n; do e=$(dd bs=%d skip=$at count=$n if="$p" 2>&1 >&3) || { echo "$e" >&2; exit 1; }; done`, from, partBlock)
	return c.inSessions(ctx, workers, q, func(ctx context.Context, l *link, s *session) error {
		w := &partReceiver{q: q, to: local.File}
		w.more = sync.NewCond(&w.mu)
		defer w.giveBack()
		_, err := c.scriptOver(ctx, l, s, script, w, receiver{w})
		if err == nil && q.left() > 0 && w.short() {
			q.fail(errors.New("the file changed on the machine while it was read"))
		}
		return err
	})
}

// asked is how many parts are requested before the first has arrived.
const asked = 3

// partReceiver requests parts from a script through the script's standard input, and reads
// them from its output.
type partReceiver struct {
	q  *partQueue
	to *os.File

	mu    sync.Mutex
	more  *sync.Cond
	asked []span // and not whole here; the first one's bytes are next
	got   int64  // of the first
	over  bool

	line []byte
}

// Read implements [io.Reader].
func (w *partReceiver) Read(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.line) == 0 {
		for len(w.asked) >= asked && !w.over {
			w.more.Wait()
		}
		s, ok := span{}, false
		if !w.over {
			s, ok = w.q.take()
		}
		if !ok {
			return 0, io.EOF
		}
		w.asked = append(w.asked, s)
		w.line = fmt.Appendf(nil, "%d %d\n", s.at/partBlock, s.blocks())
	}
	n := copy(b, w.line)
	w.line = w.line[n:]
	return n, nil
}

// receiver is the standard output of the script of a partReceiver.
type receiver struct{ *partReceiver }

// Write implements [io.Writer].
func (w receiver) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := len(b)
	for len(b) > 0 {
		if len(w.asked) == 0 {
			return 0, errors.New("the machine sends more than was requested")
		}
		s := w.asked[0]
		n := min(int64(len(b)), s.size-w.got)
		if _, err := w.to.WriteAt(b[:n], s.at+w.got); err != nil {
			w.q.fail(err)
			return 0, err
		}
		b, w.got = b[n:], w.got+n
		if w.got == s.size {
			w.asked, w.got = w.asked[1:], 0
			w.q.done(s)
			w.more.Broadcast()
		}
	}
	return all, nil
}

// short reports whether some of the requested data has not arrived.
func (w *partReceiver) short() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asked) > 0
}

// giveBack returns the parts that have not arrived to the queue, for other sessions.
func (w *partReceiver) giveBack() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	for _, s := range w.asked {
		w.q.giveBack(s)
	}
	w.asked = nil
	w.more.Broadcast()
}
