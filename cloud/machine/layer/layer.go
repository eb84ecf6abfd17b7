// Package layer turns one overlay layer, a directory, into a tar stream and
// back. In the tar, deletions are OCI whiteouts: a file named .wh.X hides X, and
// .wh..wh..opq hides everything that lower layers have in its directory. On disk
// they are what overlayfs with the userxattr option makes of them: a character
// device 0:0 and the attribute user.overlay.opaque.
//
// What a layer is made of is kept: owners, modes, times to the nanosecond, hard
// links, extended attributes. Three things are not: sockets, which mean nothing
// without their process; device nodes where the caller may not make any,
// which is so in every user namespace; and what a file has reserved on the disk
// and holds zeros, which is a hole in a copy of its data.
//
// An error names the entry that it is about. What was to be done is the caller's to say.
package layer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	opaqueXattr    = "user.overlay.opaque"
	xattrRecord    = "SCHILY.xattr."
)

// Options of [Unpack] and [Clone].
type Options struct {
	// IgnoreOwner leaves every file to the caller's user and drops access lists,
	// for callers that know one user only.
	IgnoreOwner bool

	// Merge lays the stream over what the directory holds already: a whiteout
	// deletes what it hides, and is not kept. The result is no layer over others
	// but a whole tree.
	Merge bool

	maxHoles int64 // instead of the constant, for tests that have no time
}

func (o Options) holes() int64 {
	if o.maxHoles != 0 {
		return o.maxHoles
	}
	return maxHoles
}

// Merge copies what an overlay of layers, topmost first, shows into the empty
// directory dst.
func Merge(layers []*os.File, dst *os.File, o Options) error {
	o.Merge = true
	for _, layer := range slices.Backward(layers) {
		if err := Clone(layer, dst, o); err != nil {
			return err
		}
	}
	return nil
}

// Clone copies the layer in src into the directory dst, which is empty unless
// the options say Merge.
func Clone(src, dst *os.File, o Options) error {
	u := newUnpacker(dst, o)
	defer u.close()
	from := walker{to: u}
	if err := from.walk(src); err != nil {
		return err
	}
	return u.finishDirs()
}

// overlayXattr reports whether name is overlayfs' own bookkeeping, which says
// nothing about the file.
func overlayXattr(name string) bool {
	return strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "trusted.overlay.")
}

// at is a path that names base inside the open directory dir, for system calls
// that have no *at form. Only base itself is ever resolved by name.
func at(dir int, base string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, base)
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}

// named says which entry err is about, unless err does.
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
