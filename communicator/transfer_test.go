package communicator

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A file of four exabytes that is all hole takes a hostile machine one block to send.
func TestUnpackEndlessHole(t *testing.T) {
	const size = 1 << 62
	block := make([]byte, 512)
	number := func(at int) { // in base 256
		block[at] = 0x80
		binary.BigEndian.PutUint64(block[at+4:], size)
	}
	copy(block, "hole")
	copy(block[100:], "0000644\x00")
	copy(block[124:], "00000000000\x00")
	copy(block[148:], "        ")
	block[156] = tar.TypeGNUSparse
	copy(block[257:], "ustar  \x00")
	number(386) // the only piece of data is at the end, and empty
	copy(block[398:], "00000000000\x00")
	number(483)
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	why := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, why)
	defer cancel()
	// File systems have limits, for which Windows has several errors; otherwise the transfer ends
	// with the context.
	err = Unpack(ctx, bytes.NewReader(append(block, make([]byte, 1024)...)), root)
	if err == nil || runtime.GOOS != "windows" && !errors.Is(err, why) && !errors.Is(err, syscall.EFBIG) && !errors.Is(err, syscall.EINVAL) {
		t.Errorf("got %v", err)
	}
	if _, err := root.Stat("hole"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}

// Symbolic links that lead back end a download, and so do directories without end.
func TestNesting(t *testing.T) {
	var long []string
	for i := range maxNesting + 1 {
		long = append(long, fmt.Sprint(i))
	}
	for name, want := range map[string]string{
		"a": "", "a/b/a/b/a/b": "", strings.Join(long[1:], "/"): "",
		"d" + strings.Repeat("/x", maxTurns-1):        "",
		"d" + strings.Repeat("/x", maxTurns):          "d/x: a symbolic link on the machine leads to a directory that contains it",
		"d" + strings.Repeat("/x/y", maxTurns):        "d/x/y: a symbolic link",
		"d" + strings.Repeat("/x/y", maxTurns) + "/z": "",
		strings.Join(long, "/"):                       "more than 255 levels deep",
	} {
		if err := CheckNesting(name); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		for name := "d"; ; name += "/loop" {
			if tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}) != nil {
				return
			}
		}
	}()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	err = Unpack(t.Context(), r, root)
	r.CloseWithError(err)
	if err == nil || !strings.Contains(err.Error(), "d/loop: a symbolic link") {
		t.Errorf("got %v", err)
	}
}

// FuzzUnpack reads streams of a hostile machine: nothing is ever written outside the directory.
func FuzzUnpack(f *testing.F) {
	for _, h := range []tar.Header{
		{Name: "../out", Typeflag: tar.TypeReg, Size: 1},
		{Name: "/etc/out", Typeflag: tar.TypeReg, Size: 1},
		{Name: "a/../../out", Typeflag: tar.TypeDir},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "../out"},
		{Name: "hard", Typeflag: tar.TypeLink, Linkname: "../secret"},
		{Name: "dev", Typeflag: tar.TypeChar},
		{Name: "good", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte("x"))
		}
		w.Close()
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		parent := t.TempDir()
		if err := os.WriteFile(filepath.Join(parent, "secret"), []byte("s"), 0o600); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(parent, "dst")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_ = Unpack(t.Context(), bytes.NewReader(stream), root)
		if list, err := os.ReadDir(parent); err != nil || len(list) != 2 {
			t.Errorf("outside: %v, %v", list, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "hard")); err == nil && string(b) == "s" {
			t.Error("a file from outside was read")
		}
	})
}
