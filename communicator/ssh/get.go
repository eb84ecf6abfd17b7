package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"bake/communicator"
	"bake/internal/shellquote"
)

// Get implements [communicator.Communicator].
func (c *Client) Get(ctx context.Context, src string, dst *os.Root) error {
	if c.opts.FileTransferMethod == SFTP {
		return c.getSFTP(ctx, src, dst)
	}
	dir, base := path.Split(strings.TrimRight(src, "/"))
	if base == "" { // all of /
		base = "."
	}
	if dir == "" {
		dir = "."
		if strings.HasPrefix(base, "~") {
			dir, base = base, "."
		}
	}
	kind, facts, err := c.tarKindAnd(ctx, "cd "+remotePath(dir)+" 2>/dev/null || exit 0; "+fmt.Sprintf(fileFacts, "./"+shellquote.Join(base)))
	if err != nil {
		return err
	}
	if kind == noTar {
		return c.getSFTP(ctx, src, dst)
	}
	if f, ok := parseFacts(facts); ok && base != "." && f.size >= partsFrom {
		if workers := c.workers(ctx, f.size); workers > 1 {
			from := remotePath(path.Join(dir, base))
			if strings.HasPrefix(base, "~") {
				from = remotePath(dir) + "/" + shellquote.Join(base)
			}
			if err := c.getParts(ctx, from, base, f, workers, dst); err != nil {
				return fmt.Errorf("download of %s: %w", src, err)
			}
			return nil
		}
	}
	holes := ""
	if kind == gnuTar {
		holes = "S" // holes do not travel
	}
	script := fmt.Sprintf("cd %s 2>/dev/null || exit %d; [ -e ./%[3]s ] || exit %[2]d; [ -r ./%[3]s ] || exit %[4]d; exec tar -ch%[5]sf - ./%[3]s",
		remotePath(dir), exitNoFile, shellquote.Join(base), exitNotToRead, holes)
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := communicator.Unpack(ctx, r, dst)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // padding
		}
		r.CloseWithError(err)
		unpacked <- err
	}()
	_, err = c.script(ctx, script, nil, w)
	w.CloseWithError(err)
	return c.downloaded(ctx, src, err, <-unpacked)
}

// downloaded returns the error of a download. err is the error of the script on the
// machine, local that of unpacking here.
func (c *Client) downloaded(ctx context.Context, src string, err, local error) error {
	var failed *scriptError
	switch {
	case err == nil && local == nil:
		return nil
	case err == nil:
		return fmt.Errorf("download of %s: %w", src, local)
	case errors.As(err, &failed) && failed.code == exitNoFile:
		return fmt.Errorf("download of %s: %w on the machine", src, fs.ErrNotExist)
	case errors.As(err, &failed) && failed.code == exitNotToRead:
		return fmt.Errorf("download of %s: %w: user %q cannot read it; use sudo in a shell provisioner to copy it to a place that user can read", src, fs.ErrPermission, c.opts.Username)
	case failed != nil && failed.code == 1 && changedOnly(failed.stderr) && local == nil:
		c.scope.Warn(ctx, "Download of %s: %s", src, failed.stderr)
		return nil
	case local != nil && failed == nil && errors.Is(err, local):
		return fmt.Errorf("download of %s: %w", src, local)
	}
	return fmt.Errorf("download of %s: %w", src, err)
}

// changedOnly reports whether tar's only complaint is that files, such as logs, changed
// while it read them.
func changedOnly(stderr string) bool {
	for line := range strings.Lines(stderr) {
		if !strings.Contains(line, "file changed as we read it") {
			return false
		}
	}
	return true
}
