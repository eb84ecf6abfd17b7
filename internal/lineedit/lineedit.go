// Package lineedit reads lines from a terminal, with completion and a history that is
// stored in a file.
package lineedit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/term"
)

// ErrDiscarded is the error of a line that the user has ended with Ctrl-C.
var ErrDiscarded = errors.New("line discarded")

// Editor reads lines that are typed at a terminal, with a history and completion.
type Editor struct {
	In, Out *os.File
	History term.History
	Words   []string // words that Tab completes, sorted
}

// Read returns the next line. Its error is io.EOF after Ctrl-D, [ErrDiscarded] after
// Ctrl-C, then with some text if the line held any, and the cause of ctx. A read
// cannot be cancelled, so that nothing can be read after that.
func (e *Editor) Read(ctx context.Context, prompt string) (string, error) {
	saved, err := term.MakeRaw(int(e.In.Fd()))
	if err != nil {
		return "", fmt.Errorf("the terminal: %w", err)
	}
	defer func() { _ = term.Restore(int(e.In.Fd()), saved) }()
	keys := &keys{in: e.In, out: e.Out}
	t := term.NewTerminal(keys, prompt)
	t.History = e.History
	t.AutoCompleteCallback = e.complete
	if w, h, err := term.GetSize(int(e.Out.Fd())); err == nil && w > 0 && h > 0 {
		_ = t.SetSize(w, h)
	}
	type result struct {
		line string
		err  error
	}
	ended := make(chan result, 1)
	go func() {
		line, err := t.ReadLine()
		ended <- result{line, err}
	}()
	select {
	case r := <-ended:
		switch {
		case errors.Is(r.err, term.ErrPasteIndicator):
			return r.line, nil
		case errors.Is(r.err, io.EOF) && keys.interrupted:
			io.WriteString(e.Out, "^C\r\n")
			return string(keys.typed), ErrDiscarded
		case errors.Is(r.err, io.EOF):
			io.WriteString(e.Out, "\r\n")
		}
		return r.line, r.err
	case <-ctx.Done():
		io.WriteString(e.Out, "\r\n")
		return "", context.Cause(ctx)
	}
}

// keys is a terminal that remembers what was typed up to Ctrl-C.
type keys struct {
	in          io.Reader
	out         io.Writer
	typed       []byte
	interrupted bool
}

// Read implements io.Reader.
func (k *keys) Read(b []byte) (int, error) {
	n, err := k.in.Read(b)
	typed, _, ctrlC := bytes.Cut(b[:n], []byte{3})
	k.typed = append(k.typed, typed...)
	k.interrupted = k.interrupted || ctrlC
	return n, err
}

// Write implements io.Writer.
func (k *keys) Write(b []byte) (int, error) { return k.out.Write(b) }

// complete is called for each key. It completes the name before the cursor as far as it is
// unambiguous.
func (e *Editor) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		return "", 0, false
	}
	start := 1 + strings.LastIndexFunc(line[:pos], func(r rune) bool {
		return !strings.ContainsRune("._-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", r)
	})
	prefix := line[start:pos]
	common := ""
	for _, w := range e.Words {
		switch {
		case prefix == "" || !strings.HasPrefix(w, prefix):
		case common == "":
			common = w
		default:
			for !strings.HasPrefix(w, common) {
				common = common[:len(common)-1]
			}
		}
	}
	if common == "" {
		return line, pos, true
	}
	return line[:start] + common + line[pos:], start + len(common), true
}

// History holds the lines entered before, as [term.History]. Lines that must not be stored
// are kept in memory only.
type History struct {
	lines  []string          // oldest first
	secret func(string) bool // reports whether a line contains a secret
	file   *os.File          // nil if nothing is stored
	err    error             // of the first write that failed
}

// NewHistory returns a history that is not stored.
func NewHistory() *History { return &History{} }

// keptLines is the maximum number of lines in a history.
const keptLines = 1000

// OpenHistory opens the history in dir. It does not store lines for which secret returns
// true. The error says why nothing is stored; the history can still be used.
func OpenHistory(dir string, secret func(string) bool) (*History, error) {
	h := &History{secret: secret}
	path := filepath.Join(dir, "console_history")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return h, err
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return h, err
	}
	lines := bufio.NewScanner(bytes.NewReader(old))
	lines.Buffer(nil, len(old)+1)
	for lines.Scan() {
		h.lines = append(h.lines, lines.Text())
	}
	if len(h.lines) > keptLines {
		h.lines = slices.Clone(h.lines[len(h.lines)-keptLines:])
		if err := os.WriteFile(path, []byte(strings.Join(h.lines, "\n")+"\n"), 0o600); err != nil {
			return h, err
		}
	}
	h.file, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return h, err
}

// Add implements [term.History].
func (h *History) Add(line string) {
	if strings.TrimSpace(line) == "" || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return
	}
	h.lines = append(h.lines, line)
	if h.file == nil || h.err != nil || strings.HasPrefix(line, " ") || h.secret(line) {
		return
	}
	_, h.err = h.file.WriteString(line + "\n")
}

// Len implements [term.History].
func (h *History) Len() int { return len(h.lines) }

// At implements [term.History]; 0 is the last line added.
func (h *History) At(i int) string { return h.lines[len(h.lines)-1-i] }

// Close ends the history's file. It returns the first error of writing it.
func (h *History) Close() error {
	if h.file == nil {
		return nil
	}
	if err := errors.Join(h.err, h.file.Close()); err != nil {
		return fmt.Errorf("the history of the console: %w", err)
	}
	return nil
}
