package step

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// modelDisk is a disk that loses unsynced data and directory entries in a crash. From the at-th
// operation on, operations fail with err; if err is nil, the disk crashes at that operation.
type modelDisk struct {
	files   map[string]*inode // by path, as programs see them
	durable map[string]*inode // names that are synced
	dirs    map[string]bool   // whether their own entries are synced

	ops, at  int
	times    int // number of consecutive operations that fail with err
	err      error
	half     bool // a failing write writes half of its data
	lazy     bool // only synced data survives
	operated []string
}

type inode struct{ data, durable []byte }

var errCrash = errors.New("the power fails")

// begin starts an operation. It fails if this is an operation that must fail, or after a crash.
func (d *modelDisk) begin(op string) error {
	d.ops++
	d.operated = append(d.operated, op)
	switch {
	case d.at == 0 || d.ops < d.at:
		return nil
	case d.err == nil:
		return errCrash
	case d.ops < d.at+d.times:
		return &fs.PathError{Op: op, Path: "x", Err: d.err}
	}
	return nil
}

// crash changes d to the state that a new process finds.
func (d *modelDisk) crash() {
	if d.lazy {
		d.files = maps.Clone(d.durable)
		for path := range d.files {
			for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
				if !d.dirs[dir] {
					delete(d.files, path)
				}
			}
		}
		for _, n := range d.files {
			n.data = slices.Clone(n.durable)
		}
	}
	d.at = 0
}

func (d *modelDisk) isDir(path string) bool {
	_, known := d.dirs[path]
	return known || path == filepath.Dir(path)
}

func (d *modelDisk) mkdir(dir string) error {
	if err := d.begin("mkdir"); err != nil {
		return err
	}
	d.dirs[dir] = false
	return nil
}

func (d *modelDisk) create(path string) (file, error) {
	if err := d.begin("create"); err != nil {
		return nil, err
	}
	if d.files[path] != nil {
		return nil, fs.ErrExist
	}
	n := &inode{}
	d.files[path] = n
	return &modelFile{d: d, n: n, path: path}, nil
}

func (d *modelDisk) open(path string) (file, error) {
	n := d.files[path]
	if n == nil {
		return nil, fs.ErrNotExist
	}
	return &modelFile{d: d, n: n, path: path}, nil
}

func (d *modelDisk) syncDir(dir string) error {
	if err := d.begin("sync of a directory"); err != nil {
		return err
	}
	for path, n := range d.files {
		if filepath.Dir(path) == dir {
			d.durable[path] = n
		}
	}
	for path := range d.durable {
		if filepath.Dir(path) == dir && d.files[path] == nil {
			delete(d.durable, path)
		}
	}
	for sub := range d.dirs {
		if filepath.Dir(sub) == dir {
			d.dirs[sub] = true
		}
	}
	return nil
}

func (d *modelDisk) named(f file) error {
	if err := d.begin("stat"); err != nil {
		return err
	}
	if opened, ok := f.(*modelFile); !ok || d.files[f.Name()] != opened.n {
		return fs.ErrNotExist
	}
	return nil
}

func (d *modelDisk) remove(f file) error {
	if err := d.begin("remove"); err != nil {
		return err
	}
	delete(d.files, f.Name())
	return f.Close()
}

type modelFile struct {
	d    *modelDisk
	n    *inode
	path string
	pos  int64
}

func (f *modelFile) Name() string { return f.path }

func (f *modelFile) Read(b []byte) (int, error) {
	if f.pos >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[f.pos:])
	f.pos += int64(n)
	return n, nil
}

func (f *modelFile) Write(b []byte) (int, error) {
	err := f.d.begin("write")
	if err != nil {
		if !f.d.half {
			return 0, err
		}
		b = b[:len(b)/2]
	}
	if gap := int(f.pos) - len(f.n.data); gap > 0 {
		f.n.data = append(f.n.data, make([]byte, gap)...)
	}
	f.n.data = append(f.n.data[:f.pos:f.pos], append(bytes.Clone(b), f.n.data[min(len(f.n.data), int(f.pos)+len(b)):]...)...)
	f.pos += int64(len(b))
	return len(b), err
}

func (f *modelFile) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		offset += int64(len(f.n.data))
	}
	f.pos = offset
	return offset, nil
}

func (f *modelFile) Truncate(size int64) error {
	if err := f.d.begin("truncate"); err != nil {
		return err
	}
	f.n.data = f.n.data[:size:size]
	return nil
}

func (f *modelFile) Sync() error {
	if err := f.d.begin("sync"); err != nil {
		return err
	}
	f.n.durable = bytes.Clone(f.n.data)
	return nil
}

func (f *modelFile) Close() error { return f.d.begin("close") }

// cloudOf records a run's requests to the cloud, and the ledger's acknowledgments.
type cloudOf struct {
	asked map[string]bool   // created, and neither deleted nor released
	ids   map[string]string // recorded in the ledger
	given map[string]bool   // released, as recorded in the ledger
}

// bakeOn is a run that follows the rules of a ledger until something fails.
func bakeOn(d disk, path string, c *cloudOf) error {
	l, err := createLedger(d, filepath.Dir(path), Header{Run: "r"})
	if err != nil {
		return err
	}
	err = func() error {
		for i := range 3 {
			key := fmt.Sprint("k", i)
			if err := l.Intend(Resource{Kind: "x:y", Key: key}); err != nil {
				return err
			}
			c.asked[key] = true
			if err := l.Created(key, "id-"+key); err != nil {
				return err
			}
			c.ids[key] = "id-" + key
		}
		return nil
	}()
	if errors.Is(err, errCrash) {
		return err
	}
	// Teardown continues after an error; the last resource is released to the user if everything
	// has succeeded.
	owned, _ := l.Owned()
	for _, r := range slices.Backward(owned) {
		delete(c.asked, r.Key)
		if gerr := l.Gone(r.Key); gerr != nil {
			err = errors.Join(err, gerr)
			continue
		}
		c.given[r.Key] = true
	}
	return errors.Join(err, l.Close())
}

// check compares the state that survives on d with the run's actions.
func (c *cloudOf) check(d disk, path string) error {
	l, err := openLedger(d, path)
	if errors.Is(err, fs.ErrNotExist) {
		if len(c.asked) > 0 {
			return fmt.Errorf("the ledger is lost, and with it %v", slices.Sorted(maps.Keys(c.asked)))
		}
		return nil
	} else if err != nil {
		return err
	}
	owned, _ := l.Owned()
	known := map[string]string{}
	for _, r := range owned {
		known[r.Key] = r.ID
		if c.given[r.Key] {
			return fmt.Errorf("%s was given away, and would be deleted", r.Key)
		}
	}
	for key := range c.asked {
		id, ok := known[key]
		if !ok {
			return fmt.Errorf("%s is not in the ledger", key)
		}
		if id != c.ids[key] && c.ids[key] != "" {
			return fmt.Errorf("%s has the id %q, want %q", key, id, c.ids[key])
		}
	}
	if l.Damage != nil {
		return l.Damage
	}
	return nil
}

// TestLedgerOnFailingDisk crashes the disk, or makes it full, broken or read-only, at every
// operation. The surviving ledger must contain every resource that the run requested and none that
// it no longer owns.
func TestLedgerOnFailingDisk(t *testing.T) {
	path := filepath.FromSlash("/state/new/ledgers/r.jsonl")
	for _, err := range []error{nil, syscall.ENOSPC, syscall.EIO, syscall.EROFS} {
		for _, lazy := range []bool{true, false} {
			for _, half := range []bool{true, false} {
				for i := 3; ; i++ {
					at, times := i/3, []int{1, 2, 1000}[i%3]
					d := &modelDisk{files: map[string]*inode{}, durable: map[string]*inode{}, dirs: map[string]bool{}, at: at, times: times, err: err, lazy: lazy, half: half}
					c := &cloudOf{map[string]bool{}, map[string]string{}, map[string]bool{}}
					got := bakeOn(d, path, c)
					if d.ops < at {
						if at < 20 {
							t.Fatalf("a run has %d operations: %v", d.ops, d.operated)
						}
						break
					}
					op := d.operated[at-1]
					if want := cmp.Or(err, errCrash); !errors.Is(got, want) {
						t.Errorf("%s %d fails with %v: the run says %v", op, at, want, got)
					}
					d.crash()
					if err := c.check(d, path); err != nil {
						t.Errorf("%s %d fails with %v (lazy %t, half %t): %v", op, at, got, lazy, half, err)
					}
				}
			}
		}
	}
}
