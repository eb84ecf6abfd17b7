package ssh

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"bake/communicator"
)

// A large file is sent in parts. If the machine is far away, several sessions send at once, because
// a session can have only its window, 2 MB, in flight. Holes of a sparse file are not sent.
const (
	partBlock  = 64 << 10 // parts start at a multiple of it
	largePart  = 8 << 20  // large, because each part costs the machine a process
	smallPart  = 1 << 20  // size towards the end, so that the sessions finish at about the same time
	partsFrom  = 8 << 20  // smallest file that is sent in parts
	maxWorkers = 8        // sessions; OpenSSH's limit is 10, and one reads host keys
	farAway    = 4 * time.Millisecond
)

// span is a range of a file. It starts at a multiple of partBlock.
type span struct{ at, size int64 }

// blocks returns the number of blocks of the range.
func (s span) blocks() int64 { return (s.size + partBlock - 1) / partBlock }

// spansOf splits the data of a file of size bytes into parts for that many workers. The parts are
// large at first and get smaller towards the end. ranges are the positions of the data, in order.
func spansOf(ranges []span, size int64, workers int) (parts []span) {
	done, left := int64(0), int64(0)
	for _, r := range ranges {
		left += r.size
	}
	for _, r := range ranges {
		at := max(done, r.at-r.at%partBlock)
		end := min(size, r.at+r.size)
		for at < end {
			n := min(max(smallPart, min(largePart, left/int64(2*workers))), end-at)
			if rest := n % partBlock; rest != 0 { // whole blocks, except at the end of the file
				n = min(n+partBlock-rest, size-at)
			}
			parts = append(parts, span{at, n})
			at += n
			left -= n
		}
		done = max(done, at)
	}
	return parts
}

// localFile is a local file whose parts can be read in any order.
type localFile interface {
	fs.File
	io.ReaderAt
	Fd() uintptr
}

// inParts returns how to send a file in parts: the number of sessions, and the parts. It returns
// none if one stream is better.
func (c *Client) inParts(ctx context.Context, f fs.File, size int64) (workers int, parts []span) {
	local, ok := f.(localFile)
	if !ok || size < partsFrom {
		return 0, nil
	}
	ranges := dataRanges(local.Fd(), size)
	data := int64(0)
	for _, r := range ranges {
		data += r.size
	}
	sparse := size-data >= partsFrom/2
	if workers = c.workers(ctx, data); workers < 2 && !sparse {
		return 0, nil
	}
	return workers, spansOf(ranges, size, workers)
}

// apart separates the files of a tree that are better sent in parts from the rest, which goes in
// one stream. Only files in directories that their owner can write to are sent in parts.
func (c *Client) apart(ctx context.Context, src fs.FS, dirs, files []communicator.Entry) (large, rest []communicator.Entry) {
	closed := map[string]bool{}
	for _, d := range dirs {
		closed[d.Name] = d.Perm()&0o300 != 0o300
	}
	for _, e := range files {
		if e.Info.Size() >= partsFrom && !closed[path.Dir(e.Name)] {
			if f, err := src.Open(e.Name); err == nil {
				workers, _ := c.inParts(ctx, f, e.Info.Size())
				_ = f.Close() // opened only for inspection
				if workers > 0 {
					large = append(large, e)
					continue
				}
			}
		}
		rest = append(rest, e)
	}
	return large, rest
}

// near reports whether the machine is known to be near enough for one session.
func (l *link) near() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rtt > 0 && l.rtt < farAway
}

// timed records how long the machine took to answer a simple request.
func (l *link) timed(took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if took = max(took, 1); l.rtt == 0 || took < l.rtt {
		l.rtt = took
	}
}

// workers returns the number of sessions for transferring that many bytes.
func (c *Client) workers(ctx context.Context, bytes int64) int {
	if bytes < partsFrom {
		return 1
	}
	rtt := c.roundTrip(ctx)
	if rtt < farAway {
		return 1
	}
	return min(maxWorkers, 2+int(rtt/(8*time.Millisecond)), int(bytes/(partsFrom/2)))
}

// roundTrip returns the round-trip time to the machine; 0 if it is not known.
func (c *Client) roundTrip(ctx context.Context) time.Duration {
	l, err := c.connected(ctx)
	if err != nil {
		return 0
	}
	l.mu.Lock()
	rtt := l.rtt
	l.mu.Unlock()
	if rtt > 0 {
		return rtt
	}
	start := time.Now()
	_, err = within(ctx, func() (struct{}, error) {
		_, _, err := l.SendRequest("keepalive@openssh.com", true, nil)
		return struct{}{}, err
	}, nil)
	if err != nil {
		return 0
	}
	l.timed(time.Since(start))
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rtt
}

// Exit codes of the scripts for parts, in addition to those of all scripts.
const (
	exitNoParts = 95 // send the file as a stream instead
	exitReboot  = 96 // the machine rebooted: parts sent earlier may be lost
)

var (
	errNoParts = errors.New("the machine cannot take parts of files")
	errReboot  = errors.New("the machine was restarted during the upload")
)

// bootID is a shell command that prints the id of the machine's current boot.
const bootID = `cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo -`

// putParts sends one file in parts. It writes to a temporary name in the same directory and renames
// the file when it is complete. If the target exists already, it writes into that. The error is
// errNoParts if nothing was done and a stream may work.
func (c *Client) putParts(ctx context.Context, dst string, e communicator.Entry, r io.ReaderAt, workers int, parts []span, m *meter) error {
	for again := false; ; again = true {
		err := c.putPartsOnce(ctx, dst, e, r, workers, parts, m)
		if !errors.Is(err, errReboot) || again {
			return err
		}
	}
}

func (c *Client) putPartsOnce(ctx context.Context, dst string, e communicator.Entry, r io.ReaderAt, workers int, parts []span, m *meter) error {
	to, err := c.beginParts(ctx, dst, e)
	if err != nil {
		return err
	}
	q := &partQueue{r: r, todo: slices.Clone(parts), meter: m}
	m.skip(e.Info.Size(), parts)
	if err = c.sendParts(ctx, to, workers, q); err == nil {
		err = c.endParts(ctx, to, e)
	}
	if err != nil {
		c.dropParts(ctx, to)
		m.restore(e.Info.Size(), parts, q.counted)
	}
	return err
}

// partTarget is a file on the machine that is written in parts. Its names are quoted for the shell.
type partTarget struct {
	name    string // the final name
	part    string // the name during the transfer, which is the same if the file existed before
	boot    string // id of the machine's boot
	created bool
}

// remove returns shell code that leaves no incomplete file: it empties a file that existed before.
func (t *partTarget) remove() string {
	if t.created {
		return "rm -f " + t.part
	}
	return fmt.Sprintf("[ ! -f %[1]s ] || : > %[1]s", t.name)
}

// check returns shell code that ends a script if the parts written so far may be lost.
func (t *partTarget) check() string {
	// A shell expands "~" in p=~/x, but not in of=~/x.
	return fmt.Sprintf(`p=%s; [ "$(%s)" = %s ] && [ -f "$p" ] || exit %d; `, t.part, bootID, t.boot, exitReboot)
}

// dropParts removes what was written. The machine may be unreachable, so its errors are ignored.
func (c *Client) dropParts(ctx context.Context, t *partTarget) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
	defer cancel()
	_, _ = c.script(ctx, t.remove()+"; sleep 1; "+t.remove(), nil, nil) // twice: a command that is still writing may have created the file again
}

// beginParts creates the file that the parts are written to. An existing file is emptied, as a
// stream would do, so that the disk need not hold both.
func (c *Client) beginParts(ctx context.Context, dst string, e communicator.Entry) (*partTarget, error) {
	t := &partTarget{name: remotePath(path.Join(dst, e.Name)), created: true}
	// A unique name.
	t.part = remotePath(path.Join(dst, path.Dir(e.Name), ".bake-part-"+strings.ToLower(rand.Text())))
	out, err := c.script(ctx, fmt.Sprintf("[ -d %[1]s ] || exit %[2]d; [ ! -d %[3]s ] || exit %[4]d; "+
		"dd iflag=fullblock if=/dev/null of=/dev/null 2>/dev/null || exit %[5]d; umask 077; "+
		"if [ -e %[3]s ] || [ -h %[3]s ]; then [ ! -e %[3]s ] || { [ -f %[3]s ] && [ -w %[3]s ]; } || exit %[5]d; (: > %[3]s) 2>/dev/null || exit %[5]d; echo there; "+
		"else (set -C; : > %[6]s) 2>/dev/null || exit %[5]d; echo created; fi; %[7]s",
		remotePath(dst), exitNoDir, t.name, exitIsDir, exitNoParts, t.part, bootID), nil, nil)
	switch failed := (*scriptError)(nil); {
	case errors.As(err, &failed) && failed.code == exitNoParts:
		return nil, errNoParts
	case errors.As(err, &failed):
		return nil, err
	case err != nil: // it may have been created
		c.dropParts(ctx, t)
		return nil, err
	}
	how, boot, _ := strings.Cut(out, "\n")
	t.boot = quoteWord(strings.TrimSpace(boot))
	if t.created = how == "created"; !t.created {
		t.part = t.name
	}
	return t, nil
}

// sendParts sends the parts in q.
func (c *Client) sendParts(ctx context.Context, t *partTarget, workers int, q *partQueue) error {
	script := t.check() + fmt.Sprintf(`while read -r at n && [ -f "$p" ]; do `+
		`e=$(dd iflag=fullblock bs=%d seek=$at count=$n conv=notrunc of="$p" 2>&1) && case $e in $n+0\ *) ;; *) false;; esac || { echo "$e" >&2; exit 1; }; echo $at; done`, partBlock)
	return rebooted(c.inSessions(ctx, workers, q, func(ctx context.Context, l *link, s *session) error {
		w := &partSender{q: q}
		defer w.giveBack()
		_, err := c.scriptOver(ctx, l, s, script, w, &lineWriter{line: w.acknowledged})
		return err
	}))
}

// endParts gives the file its size, its mode and its name.
func (c *Client) endParts(ctx context.Context, t *partTarget, e communicator.Entry) error {
	script := t.check() + fmt.Sprintf(`dd bs=1 seek=%d count=0 of="$p" 2>/dev/null || exit 1; `, e.Info.Size())
	if t.created {
		script += fmt.Sprintf(`[ ! -d %[1]s ] || exit %[2]d; mv -f "$p" %[1]s || exit 1; `, t.name, exitIsDir)
	}
	_, err := c.script(ctx, script+setMode(e, t.name), nil, nil)
	return rebooted(err)
}

// rebooted turns the exit code for a reboot into errReboot.
func rebooted(err error) error {
	if failed := (*scriptError)(nil); errors.As(err, &failed) && failed.code == exitReboot {
		return errReboot
	}
	return err
}

// cleanLimit limits the removal of an upload's remains.
const cleanLimit = 10 * time.Second

// quoteWord returns a word that the machine sent, or "-" if it is not a plain name.
func quoteWord(s string) string {
	if !plainName(s) {
		return "-"
	}
	return "'" + s + "'"
}

// inSessions calls work in several sessions until q is empty. Parts interrupted by a lost
// connection are sent again, unless no part at all gets through.
func (c *Client) inSessions(ctx context.Context, workers int, q *partQueue, work func(context.Context, *link, *session) error) error {
	for fruitless := 0; ; fruitless++ {
		before := q.left()
		if before == 0 {
			return nil
		}
		err := c.round(ctx, workers, work)
		switch {
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case q.failed() != nil:
			return q.failed()
		case err != nil && !errors.Is(err, communicator.ErrDisconnected):
			return err
		}
		if q.left() < before {
			fruitless = 0
		}
		if fruitless >= 2 {
			if err == nil {
				err = errors.New("the machine does not acknowledge the data")
			}
			return err
		}
	}
}

// round calls work once in each of up to workers sessions, as many as the machine allows. An error
// other than the loss of the connection stops all sessions.
func (c *Client) round(ctx context.Context, workers int, work func(context.Context, *link, *session) error) error {
	l, s, err := c.session(ctx)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	errs := make([]error, workers)
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			s := s
			if i > 0 {
				var err error
				if s, err = l.newSession(ctx); err != nil {
					return // the machine allows no more sessions, or the link is lost: the first session will report that
				}
			}
			if errs[i] = work(ctx, l, s); errs[i] != nil && !errors.Is(errs[i], communicator.ErrDisconnected) {
				stop(errs[i])
			}
		})
	}
	all.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return cmp.Or(errs...)
}

// partQueue holds the parts of a file that are still to be transferred.
type partQueue struct {
	r io.ReaderAt

	mu      sync.Mutex
	todo    []span
	pending int // taken, and not known to be done
	meter   *meter
	counted int   // bytes of the finished parts
	err     error // on this host
}

func (q *partQueue) failed() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

func (q *partQueue) left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.todo) + q.pending
}

func (q *partQueue) take() (span, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.todo) == 0 || q.err != nil {
		return span{}, false
	}
	s := q.todo[0]
	q.todo = q.todo[1:]
	q.pending++
	return s, true
}

func (q *partQueue) done(s span) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending--
	q.counted += int(s.size)
	q.meter.add(int(s.size))
}

func (q *partQueue) giveBack(s span) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pending--
	q.todo = append(q.todo, s)
}

func (q *partQueue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
	}
}

// partSender is the standard input of a script that writes parts: for each part a line with its
// position and number of blocks, then the blocks.
type partSender struct {
	q *partQueue

	mu   sync.Mutex
	sent []span // not acknowledged yet
	over bool

	line []byte // sent next
	at   span   // sent after line
	zero int64  // bytes to fill the last block
}

// Read implements [io.Reader].
func (w *partSender) Read(b []byte) (int, error) {
	if len(w.line) == 0 && w.at.size == 0 && w.zero == 0 {
		w.mu.Lock()
		if w.over {
			w.mu.Unlock()
			return 0, io.EOF
		}
		s, ok := w.q.take()
		if !ok {
			w.mu.Unlock()
			return 0, io.EOF
		}
		w.sent = append(w.sent, s)
		w.mu.Unlock()
		w.line = fmt.Appendf(nil, "%d %d\n", s.at/partBlock, s.blocks())
		w.at, w.zero = s, s.blocks()*partBlock-s.size
	}
	if len(w.line) > 0 {
		n := copy(b, w.line)
		w.line = w.line[n:]
		return n, nil
	}
	if w.at.size > 0 {
		n, err := w.q.r.ReadAt(b[:min(int64(len(b)), w.at.size)], w.at.at)
		w.at.at, w.at.size = w.at.at+int64(n), w.at.size-int64(n)
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the local file changed while it was read")
			}
			w.q.fail(err)
			return 0, err
		}
		return n, nil
	}
	n := min(int64(len(b)), w.zero)
	clear(b[:n])
	w.zero -= n
	return int(n), nil
}

// acknowledged handles a line of the script: the part that starts at that block is written.
func (w *partSender) acknowledged(line string) {
	block, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range w.sent {
		if s.at == block*partBlock {
			w.sent = slices.Delete(w.sent, i, i+1)
			w.q.done(s)
			return
		}
	}
}

// giveBack returns the parts that were not acknowledged to the queue.
func (w *partSender) giveBack() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	for _, s := range w.sent {
		w.q.giveBack(s)
	}
	w.sent = nil
}

// lineWriter calls line for each line that is written to it.
type lineWriter struct {
	line func(string)
	rest []byte
}

// Write implements [io.Writer].
func (w *lineWriter) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		i := bytes.IndexByte(w.rest, '\n')
		if i < 0 {
			if len(w.rest) > 4<<10 {
				return 0, bufio.ErrTooLong
			}
			return len(b), nil
		}
		w.line(string(w.rest[:i]))
		w.rest = w.rest[i+1:]
	}
}
