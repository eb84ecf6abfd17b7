// Package layer turns one overlay layer, a directory, into a tar stream and back. In the tar,
// deletions are OCI whiteouts: a file named .wh.X hides X, and .wh..wh..opq hides everything that
// lower layers have in its directory. On disk they have the form of overlayfs with the userxattr
// option: a character device 0:0 and the attribute user.overlay.opaque.
//
// Owners, modes, times to the nanosecond, hard links and extended attributes are kept. Three things
// are not: sockets, which are useless without their process; device nodes if the caller may not
// create any, as in every user namespace; and disk blocks that a file has reserved but that hold
// only zeros, which become holes in a copy.
//
// An error names the entry that it concerns. The caller adds the operation.
package layer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	opaqueXattr    = "user.overlay.opaque"
	xattrRecord    = "SCHILY.xattr."
)

// Options are the options of [Unpack] and [Clone].
type Options struct {
	// IgnoreOwner makes the caller's user the owner of every file and drops access lists. It is for
	// callers that have only one user id.
	IgnoreOwner bool

	maxHoles int64 // replaces the constant in tests, which would take too long
}

func (o Options) holes() int64 {
	if o.maxHoles != 0 {
		return o.maxHoles
	}
	return maxHoles
}

// Merge copies the merged content of an overlay of layers, topmost first, into the empty directory
// dst.
func Merge(layers []*os.File, dst *os.File, o Options) error {
	return copyInto(dst, o, func(u *unpacker) error { return (&walker{to: u, merged: true}).walk(layers) })
}

// Clone copies the layer in src into the empty directory dst.
func Clone(src, dst *os.File, o Options) error {
	return copyInto(dst, o, func(u *unpacker) error { return (&walker{to: u}).walk([]*os.File{src}) })
}

// copyInto calls walk with an unpacker that writes to dst.
func copyInto(dst *os.File, o Options, walk func(*unpacker) error) error {
	u := newUnpacker(dst, o)
	defer u.close()
	if err := walk(u); err != nil {
		return err
	}
	return u.finishDirs()
}

// overlayXattr reports whether name is an attribute of overlayfs itself, which does not belong to
// the file.
func overlayXattr(name string) bool {
	return strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "trusted.overlay.")
}

// at returns a path for base in the open directory dir, for system calls that have no *at form.
// Only base itself is resolved by name.
func at(dir int, base string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, base)
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}

// named adds the name of the entry to err, unless err has it.
func named(name string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*os.PathError](err); ok && path.Clean("/"+e.Path) == path.Clean("/"+name) {
		return err
	}
	return fmt.Errorf("%q: %w", name, err)
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
