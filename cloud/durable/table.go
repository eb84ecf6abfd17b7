package durable

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// Table stores the objects of one kind, keyed by id: in memory, and on disk as one JSON file each,
// which is replaced atomically and synced before a change takes effect. OpenTable reads the files.
//
// Rows in the table are never modified, only replaced, so the results of Get and All may be read,
// and returned to clients, without a lock.
type Table[T any] struct {
	dir   string
	Rows  map[string]*T // keyed by id, which is a file name; read-only
	wrote func()        // called after every change on disk
}

// OpenTable reads the rows in dir, which it creates if necessary.
func OpenTable[T any](dir string, wrote func()) (*Table[T], error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	t := &Table[T]{dir: dir, Rows: map[string]*T{}, wrote: wrote}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			ids = append(ids, id)
		} else if err := os.Remove(filepath.Join(dir, e.Name())); err != nil { // an unfinished write
			return nil, err
		}
	}
	rows := make([]*T, len(ids))
	var g errgroup.Group
	for part := range runtime.GOMAXPROCS(0) {
		g.Go(func() (err error) {
			for i := part; i < len(ids) && err == nil; i += runtime.GOMAXPROCS(0) {
				rows[i] = new(T)
				err = readRow(t.path(ids[i]), rows[i])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, id := range ids {
		t.Rows[id] = rows[i]
	}
	return t, nil
}

// path is the file of the row id.
func (t *Table[T]) path(id string) string { return filepath.Join(t.dir, id+".json") }

// Damaged returns the error for a file of the state that cannot be understood because of err.
func Damaged(name string, err error) error {
	return fmt.Errorf("%s is damaged: %w; move it to another directory to go on without what it describes", name, err)
}

func readRow(name string, row any) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, row); err != nil {
		return Damaged(name, err)
	}
	return nil
}

// NameID derives an id from a name and its namespace, such as account and region. Names may contain
// characters that file names cannot.
func NameID(place ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(place, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// Get returns the row with that id.
func (t *Table[T]) Get(id string) (*T, bool) {
	row, ok := t.Rows[id]
	return row, ok
}

// All returns the rows, sorted by id.
func (t *Table[T]) All() []*T {
	rows := make([]*T, 0, len(t.Rows))
	for _, id := range t.IDs() {
		rows = append(rows, t.Rows[id])
	}
	return rows
}

// IDs returns the ids of all rows, sorted.
func (t *Table[T]) IDs() []string {
	ids := make([]string, 0, len(t.Rows))
	for id := range t.Rows {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Put stores a copy of row under id, replacing any existing row.
func (t *Table[T]) Put(id string, row *T) error {
	data, err := Marshal(row)
	if err != nil {
		return err
	}
	stored := new(T)
	if err := json.Unmarshal(data, stored); err != nil {
		return err
	}
	if err := replaceFile(t.path(id), data); err != nil {
		return err
	}
	t.Rows[id] = stored
	t.wrote()
	return nil
}

// Edit replaces the row with the result of change. It does nothing if there is no such row.
func (t *Table[T]) Edit(id string, change func(*T)) error {
	if _, ok := t.Rows[id]; !ok {
		return nil
	}
	return t.Change(id, func(row *T) error {
		change(row)
		return nil
	})
}

// Change replaces the row, or adds one if it does not exist, with the result of change. If change
// or writing fails, the row stays as it was. A row that change does not modify is not written.
func (t *Table[T]) Change(id string, change func(*T) error) error {
	next := new(T)
	var before []byte // the row as JSON; nil if it does not exist
	if row, ok := t.Rows[id]; ok {
		var err error
		if before, err = json.Marshal(row); err != nil {
			return err
		}
		if err := json.Unmarshal(before, next); err != nil {
			return err
		}
	}
	if err := change(next); err != nil {
		return err
	}
	if after, err := json.Marshal(next); err != nil || bytes.Equal(before, after) {
		return err
	}
	return t.Put(id, next)
}

// Drop deletes the rows with those ids, if they exist.
func (t *Table[T]) Drop(ids ...string) error {
	for _, id := range ids {
		if err := os.Remove(t.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		delete(t.Rows, id)
		t.wrote()
	}
	if len(ids) == 0 {
		return nil
	}
	return SyncDir(t.dir)
}

// Marshal returns the JSON form of v, indented and without null or empty fields, of which the SDK's
// structs have many.
func Marshal(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var tree any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	data, err = json.MarshalIndent(prune(tree), "", "  ")
	return append(data, '\n'), err
}

// prune removes null and empty values from the objects in tree.
func prune(tree any) any {
	switch t := tree.(type) {
	case map[string]any:
		for k, v := range t {
			v = prune(v)
			switch e := v.(type) {
			case nil:
				delete(t, k)
				continue
			case string:
				if e == "" {
					delete(t, k)
					continue
				}
			case []any:
				if len(e) == 0 {
					delete(t, k)
					continue
				}
			}
			t[k] = v
		}
	case []any:
		for i := range t {
			t[i] = prune(t[i])
		}
	}
	return tree
}

// replaceFile is [Replace] for the file of a row. If the disk is full, it frees the reserve and
// tries again, so that resources can still be deleted to make room.
func replaceFile(name string, data []byte) error {
	err := Replace(name, data, 0o600)
	if IsFull(err) && os.Remove(reservePath(filepath.Dir(name))) == nil {
		err = Replace(name, data, 0o600)
	}
	switch {
	case IsFull(err):
		return fmt.Errorf("the state of the embedded cloud could not be written: %w; free some space on the disk of its directory%s and try again", err, Left(filepath.Dir(name)))
	case err != nil:
		return fmt.Errorf("the state of the embedded cloud could not be written: %w", err)
	}
	return nil
}

// reserveSize is several hundred times the size of a row.
const reserveSize = 1 << 20

// reservePath returns the path of the reserve of the tables beside dir: a file that only exists to
// be deleted when the disk is full.
func reservePath(dir string) string { return filepath.Join(filepath.Dir(dir), "reserve") }

// KeepReserve creates the reserve of the tables in dir. It is no error if the disk has no room for
// it: a later call tries again.
func KeepReserve(dir string) error {
	noRoom := func(err error) bool { return IsFull(err) || errors.Is(err, syscall.EFBIG) } // EFBIG: ulimit -f
	f, err := os.OpenFile(filepath.Join(dir, "reserve"), os.O_CREATE|os.O_WRONLY, 0o600)
	if noRoom(err) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, reserveSize))
	err = errors.Join(err, f.Close())
	if noRoom(err) {
		return os.Remove(f.Name())
	}
	return err
}
