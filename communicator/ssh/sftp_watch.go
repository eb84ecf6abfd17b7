package ssh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"bake/internal/delay"
)

const (
	// sftpSilence is how long a machine may leave requests unanswered, and sftpQuiet when the user
	// learns that it does. Each one takes it milliseconds; a slow disk takes longer, and a connection
	// of 64 kbit/s half a minute for what one request writes.
	sftpSilence = 2 * time.Minute
	sftpQuiet   = time.Minute
	// sftpStep is how many bytes of a packet count as progress, because on a slow connection one
	// packet takes long.
	sftpStep = 4 << 10
	// maxListing is how many bytes a listing of one directory may have: a quarter of a million files.
	maxListing = 32 << 20
)

var (
	errUnanswered = &silentError{"the machine's SFTP server has not answered for %s", sftpSilence}
	errHollow     = errors.New("the machine's SFTP server answers requests without what was asked for")
)

// sftpWatch sees the packets of an SFTP session. It knows whether the machine owes an answer and
// since when, and ends a session whose answers lead nowhere.
type sftpWatch struct {
	mu        sync.Mutex
	requests  packets
	answers   packets
	pending   map[uint32]byte // the types of the requests that have no answer, by id
	moved     time.Time       // when there was progress last
	uncounted int64           // bytes since then
	listed    int64           // bytes of the listing that is being read
	giveUp    error           // why the session was ended
}

// The types of packets that matter here.
const (
	fxpOpen, fxpRead, fxpLstat, fxpFstat, fxpOpendir, fxpReaddir, fxpRealpath, fxpStat = 3, 5, 7, 8, 11, 12, 16, 17

	fxpStatus, fxpData, fxpName = 101, 103, 104
)

// sent notes that b was sent to the machine.
func (w *sftpWatch) sent(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.requests.whole
	w.requests.pass(b, func(p start) {
		if w.pending == nil { // the first one has no id
			w.pending = map[uint32]byte{}
		} else {
			w.pending[p.id] = p.kind
		}
	})
	w.progress(len(b), w.requests.whole > before)
}

// received notes that the machine has sent b. Its error ends the session.
func (w *sftpWatch) received(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.answers.whole
	w.answers.pass(b, func(p start) {
		asked := w.pending[p.id]
		delete(w.pending, p.id)
		if wrong := w.check(p, asked); wrong != nil && w.giveUp == nil {
			w.giveUp = wrong
		}
	})
	w.progress(len(b), w.answers.whole > before)
	return w.giveUp
}

// check checks the answer to a request of type asked. The library would take an answer that says
// that all is well, but does not hold what was asked for, as a file without a description, and ask
// again and again.
func (w *sftpWatch) check(p start, asked byte) error {
	w.listed += max(p.size, 1<<10)
	switch {
	case p.kind == fxpName && w.listed > maxListing:
		return fmt.Errorf(`a list of the files in one directory is longer than %d MiB; set ssh_file_transfer_method = "scp"`, maxListing>>20)
	case p.kind == fxpName:
		return nil
	case p.kind == fxpData && p.first == 0, p.kind == fxpStatus && p.first == 0 && slices.Contains(contentful(), asked):
		return errHollow
	}
	w.listed = 0
	return nil
}

// contentful are the requests that are answered with more than a status.
func contentful() []byte {
	return []byte{fxpOpen, fxpRead, fxpLstat, fxpFstat, fxpOpendir, fxpReaddir, fxpRealpath, fxpStat}
}

// packets are those of one direction.
type packets struct {
	begun, whole int
	head         []byte // of the packet that is next, as far as it is there
	left         int64  // what is missing of the one before
}

// start is the start of a packet. The fields after kind are 0 in packets that are too short.
type start struct {
	size      int64
	kind      byte
	id, first uint32
}

// pass notes that b has passed, and calls begin with each packet that begins.
func (p *packets) pass(b []byte, begin func(start)) {
	for len(b) > 0 {
		if p.left == 0 {
			want := 4
			if len(p.head) >= 4 {
				want = int(min(4+int64(binary.BigEndian.Uint32(p.head)), 13))
			}
			n := min(len(b), want-len(p.head))
			p.head, b = append(p.head, b[:n]...), b[n:]
			if len(p.head) < want || want == 4 && binary.BigEndian.Uint32(p.head) > 0 {
				continue
			}
			s := parseStart(p.head)
			begin(s)
			p.begun++
			p.left, p.head = s.size+4-int64(len(p.head)), p.head[:0]
		}
		n := min(int64(len(b)), p.left)
		if b, p.left = b[n:], p.left-n; p.left == 0 {
			p.whole++
		}
	}
}

func parseStart(head []byte) start {
	s := start{size: int64(binary.BigEndian.Uint32(head))}
	if len(head) > 4 {
		s.kind = head[4]
	}
	if len(head) >= 9 {
		s.id = binary.BigEndian.Uint32(head[5:])
	}
	if len(head) >= 13 {
		s.first = binary.BigEndian.Uint32(head[9:])
	}
	return s
}

// progress notes that n bytes have moved; whole reports whether they count in any case. The caller
// holds the lock.
func (w *sftpWatch) progress(n int, whole bool) {
	if w.uncounted += int64(n); whole || w.uncounted >= sftpStep {
		w.moved, w.uncounted = time.Now(), 0
	}
}

// silence returns for how long the machine has owed an answer.
func (w *sftpWatch) silence() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.requests.begun <= w.answers.whole {
		return 0
	}
	return time.Since(w.moved)
}

// end notes why the session is ended.
func (w *sftpWatch) end(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.giveUp = err
}

// ended returns why the session was ended, or nil.
func (w *sftpWatch) ended() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.giveUp
}

// attend warns of a machine that owes an answer, and calls stop if it does not come.
func (c *Client) attend(ctx context.Context, l *link, w *sftpWatch, stop func()) {
	for warned := false; delay.For(ctx, time.Second) == nil; {
		switch silence := w.silence(); {
		case silence >= sftpSilence:
			w.end(errUnanswered)
			stop()
			return
		case silence >= sftpQuiet && !warned:
			warned = true
			c.scope.Warn(ctx, "The SFTP server of the machine at %s has not answered for %s; the transfer ends if it does not answer within %s.", l.addr, sftpQuiet, sftpSilence-sftpQuiet)
		case silence < sftpQuiet:
			warned = false
		}
	}
}

// watchedWriter passes requests to a session.
type watchedWriter struct {
	io.WriteCloser
	watch *sftpWatch
}

// Write implements [io.Writer].
func (w watchedWriter) Write(b []byte) (int, error) {
	w.watch.sent(b)
	return w.WriteCloser.Write(b)
}
