package asroot

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"bake/communicator"
)

// Fetch runs a shell script as root, then calls its function of that name, and passes the
// function's standard output to parse: any bytes, compressed in transit if the machine
// supports that. The output is limited to limit bytes. Fetch does not detect a function
// that fails: parse has to know where the output ends.
func Fetch(ctx context.Context, on communicator.Communicator, script, function string, limit int64, parse func(io.Reader) error) error {
	script = "LC_ALL=C; export LC_ALL\n" + script + `
command -v base64 >/dev/null || { echo "the machine has no base64" >&2; exit 1; }
z=cat
if command -v gzip >/dev/null; then z='gzip -1c'; fi
printf '\n\001bake %s\n' "$z"
` + function + ` </dev/null | $z | base64
printf '\n'
exit 0
`
	pr, pw := io.Pipe()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() {
		err := fetched(pr, limit, parse)
		if err != nil {
			cancel(err)
		}
		pr.CloseWithError(err)
		done <- err
	}()
	err := Stream(ctx, on, script, pw)
	pw.CloseWithError(err) // or, without one, the end
	if parsed := <-done; parsed != nil {
		return parsed // which is err, if that came first
	}
	return err
}

// fetched reads the script's output to its end.
func fetched(in io.Reader, limit int64, parse func(io.Reader) error) error {
	r := bufio.NewReaderSize(in, 1<<16)
	how := ""
	for how == "" {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return errors.New("the machine says a line that does not end")
		case errors.Is(err, io.EOF):
			return errors.New("the machine returned nothing: the script did not finish, or there is no machine to inspect")
		case err != nil:
			return err
		}
		if len(line) > len(mark) && string(line[:len(mark)]) == mark {
			how = string(line[len(mark) : len(line)-1])
		}
	}
	data := base64.NewDecoder(base64.StdEncoding, &untilBlank{r: r})
	if how != "cat" && how != "cat\r" {
		z, err := gzip.NewReader(data)
		if err != nil {
			return err
		}
		data = z
	}
	limited := &io.LimitedReader{R: data, N: limit}
	err := parse(limited)
	if limited.N == 0 {
		err = fmt.Errorf("the machine says more than %d MB", limit>>20)
	}
	if err != nil {
		return err
	}
	// Only the end of the base64 text and output of the login shell can follow.
	if _, err := io.CopyN(io.Discard, r, 1<<16); err == nil {
		return errors.New("the machine returned more than was requested")
	}
	return nil
}

// untilBlank reads lines up to a blank one.
type untilBlank struct {
	r    *bufio.Reader
	rest []byte
	done bool
}

func (u *untilBlank) Read(p []byte) (int, error) {
	for len(u.rest) == 0 {
		if u.done {
			return 0, io.EOF
		}
		line, err := u.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		if u.rest = line; len(line) == 1 || string(line) == "\r\n" {
			u.rest, u.done = nil, true
		}
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

// attempt starts a shell as root if that needs no password, or else as the user who is
// logged in.
const attempt = `sh -c 'if [ "$(id -u)" != 0 ] && sudo -n true </dev/null >/dev/null 2>&1; then exec sudo -n sh -s; fi; exec sh -s'`

// Attempt is [Stream], but runs the script without root if the user cannot become root.
func Attempt(ctx context.Context, on communicator.Communicator, script string, out io.Writer) error {
	return stream(ctx, on, attempt, script, out)
}
