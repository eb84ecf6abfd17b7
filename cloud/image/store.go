// Package image stores what machines boot from: read-only layers, bases made from them, and the
// catalog that maps publishers' images to bases.
//
// A [Store] is a directory of plain files that any number of processes may use at once:
//
//	layers/ID         the content of a layer, a directory
//	layers/ID.json    its record; without it the layer does not exist
//	bases/NAME.json   a base: its layers and how to boot them
//	publications/     added publications: imported images and aliases
//	cache/            downloads, which may be deleted at any time
//	tmp/              work in progress
//	layers.lock       locked while the record of a layer is changed or removed
//	lock              locked shared by work in progress, exclusively for cleaning
//
// A record is written atomically after the content that it describes, so a killed process leaves
// every layer complete or absent. A later Open deletes unfinished work. A layer is made by renaming
// a directory, which is cheap. After a power failure, the last images made from stopped machines
// may be incomplete: making them waits for their records to reach the disk, but not for their
// content. An image may have a long chain of layers: see [MaxLayers].
package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"bake/cloud/confined"
	"bake/cloud/durable"
	"bake/cloud/lazyregexp"
	"bake/cloud/machine"
)

// MaxLayers is the longest chain of layers of one machine: overlayfs accepts 500 lower directories.
// Every image made from a machine is one layer longer than the image that the machine was started
// from. Chains are not shortened: merging layers would copy all of them, and 500 generations of an
// image, each started from the last, are more often a mistake than a need.
const MaxLayers = 500

// LayerID names a layer in its store.
type LayerID string

// ErrNotFound is the cause if a layer, base or publication does not exist.
var ErrNotFound = errors.New("not found")

// ErrFull is the cause if the disk that holds the store is full. Its text says what to do.
var ErrFull = errors.New("free some space on its disk and try again")

// Store is a directory of layers and bases. Its methods are safe for concurrent
// use.
type Store struct {
	dir    string // absolute
	driver machine.Driver
}

// layerRecord is the content of a layer's JSON file.
type layerRecord struct {
	ID      LayerID   `json:"id"`
	Created time.Time `json:"created"`
	DiffID  string    `json:"diff_id,omitempty"` // digest of the tar that it was made from, verified; also an OCI layer's
	Size    int64     `json:"size,omitempty"`    // size as a tar that [machine.Driver] packs, once computed
	Digest  string    `json:"digest,omitempty"`  // of that tar, likewise
}

// Open opens the store in dir, creating it if necessary, and deletes the unfinished work of
// processes that died.
func Open(dir string, driver machine.Driver) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	s := &Store{dir: dir, driver: driver}
	for _, sub := range []string{"", "layers", "bases", "publications", "cache", "tmp"} {
		if err := driver.Private(filepath.Join(dir, sub)); err != nil {
			return nil, s.explain("open image store", err)
		}
	}
	unlock, err := tryLock(s.path("lock"), syscall.LOCK_EX)
	if errors.Is(err, errLocked) {
		return s, nil // other processes are at work: unfinished files may be theirs
	}
	if err != nil {
		return nil, s.explain("open image store", err)
	}
	defer unlock()
	if err := s.clean(context.Background()); err != nil {
		return nil, s.explain("clean up image store", err)
	}
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// clean deletes unfinished work. The caller holds the lock exclusively.
func (s *Store) clean(ctx context.Context) error {
	for _, pattern := range []string{"*/" + durable.Temp, "cache/.download-*"} {
		files, err := fs.Glob(os.DirFS(s.dir), pattern)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Remove(s.path(f)); err != nil {
				return err
			}
		}
	}
	work, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return err
	}
	for _, e := range work {
		if err := s.driver.Remove(ctx, s.path("tmp", e.Name())); err != nil {
			return err
		}
	}
	layers, err := os.ReadDir(s.path("layers"))
	if err != nil {
		return err
	}
	for _, e := range layers {
		if !e.IsDir() {
			continue
		}
		if _, err := os.Stat(s.recordPath(LayerID(e.Name()))); errors.Is(err, os.ErrNotExist) {
			if err := s.driver.Remove(ctx, s.path("layers", e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// work creates a directory in tmp, on the layers' file system, for fn and deletes it afterwards
// with everything left in it.
func (s *Store) work(ctx context.Context, fn func(dir string) error) (err error) {
	unlock, err := lock(ctx, s.path("lock"), syscall.LOCK_SH)
	if err != nil {
		return err
	}
	defer unlock()
	dir, err := os.MkdirTemp(s.path("tmp"), "work-")
	if err != nil {
		return err
	}
	err = s.driver.Private(dir)
	defer func() {
		err = errors.Join(err, s.driver.Remove(context.WithoutCancel(ctx), dir))
	}()
	if err != nil {
		return err
	}
	return fn(dir)
}

// elsewhere returns the error of a directory that cannot be renamed into the store.
func (s *Store) elsewhere(upper string) error {
	return &os.LinkError{Op: "make a layer of", Old: upper, New: s.dir, Err: errors.New("it is on another file system than the image store: keep both below one directory")}
}

// adopt renames content to its final place and writes the record that makes it a layer. The caller
// holds the lock shared.
func (s *Store) adopt(content string, r layerRecord) (LayerID, error) {
	r.ID, r.Created = NewLayerID(), time.Now().UTC()
	place := s.path("layers", string(r.ID))
	if err := os.Rename(content, place); err != nil {
		return "", err
	}
	if err := writeRecord(s.recordPath(r.ID), r); err != nil {
		return "", errors.Join(err, os.Rename(place, content))
	}
	return r.ID, nil
}

// importLayer unpacks tar, reads it to its end and makes a layer of it if check accepts the result.
func (s *Store) importLayer(ctx context.Context, tar io.Reader, r layerRecord, check func(dir string) error) (id LayerID, err error) {
	err = s.work(ctx, func(dir string) error {
		content := filepath.Join(dir, "content")
		if err := s.unpack(ctx, tar, content); err != nil {
			return err
		}
		if err := check(content); err != nil {
			return err
		}
		if err := syncFileSystem(s.dir); err != nil {
			return err
		}
		id, err = s.adopt(content, r)
		return err
	})
	return id, err
}

// unpack makes the directory content of tar, and reads tar to its end.
func (s *Store) unpack(ctx context.Context, tar io.Reader, content string) error {
	whole := &endReader{r: tar}
	if err := s.driver.Unpack(ctx, whole, content); err != nil {
		return err
	}
	return whole.check()
}

// Clone makes a layer from a copy of upper, the upper directory of a running machine that is frozen
// during the copy. The caller must Flush before it writes anything that depends on the layer after
// a crash of the host.
func (s *Store) Clone(ctx context.Context, upper confined.Dir) (id LayerID, err error) {
	from, err := upper.Open()
	if err != nil {
		return "", s.explain("copy a layer", err)
	}
	defer from.Close()
	err = s.work(ctx, func(dir string) error {
		content := filepath.Join(dir, "content")
		if err := s.driver.Clone(ctx, from, content); err != nil {
			return err
		}
		id, err = s.adopt(content, layerRecord{})
		return err
	})
	if err != nil {
		return "", s.explain("copy a layer", err)
	}
	return id, nil
}

// Hold keeps Collect from deleting anything until release is called. Callers use it while they make
// or look up layers and then record what the layers are for. It waits until a running Collect has
// ended.
func (s *Store) Hold(ctx context.Context) (release func(), err error) {
	return lock(ctx, s.path("lock"), syscall.LOCK_SH)
}

// Flush writes the content of all layers to the disk.
func (s *Store) Flush() error { return s.explain("write layers to the disk", syncFileSystem(s.dir)) }

// Path returns the directory of a layer. Nothing may be written below it.
func (s *Store) Path(id LayerID) (string, error) {
	if _, err := s.record(id); err != nil {
		return "", err
	}
	return s.path("layers", string(id)), nil
}

// Paths returns the directories of layers in the same order, for
// [machine.Spec].
func (s *Store) Paths(ids []LayerID) ([]string, error) {
	if len(ids) > MaxLayers {
		return nil, fmt.Errorf("the image has %d layers, but a machine can have at most %d: start again from an image with fewer", len(ids), MaxLayers)
	}
	paths := make([]string, len(ids))
	for i, id := range ids {
		var err error
		if paths[i], err = s.Path(id); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// Size returns the size of a layer as a tar, in bytes. The first call computes it by reading the
// layer.
func (s *Store) Size(ctx context.Context, id LayerID) (int64, error) {
	r, err := s.record(id)
	if err != nil || r.Size > 0 {
		return r.Size, err
	}
	n, _, err := s.measure(ctx, id)
	return n, err
}

// measure returns the size of a layer as a tar, and the digest of that.
func (s *Store) measure(ctx context.Context, id LayerID) (size int64, digest string, err error) {
	r, err := s.record(id)
	if err != nil || r.Digest != "" {
		return r.Size, r.Digest, err
	}
	var n counter
	hash := sha256.New()
	err = s.driver.Pack(ctx, s.path("layers", string(id)), io.MultiWriter(&n, hash))
	digest = digestOf(hash)
	if err == nil {
		err = s.noteMeasure(ctx, id, int64(n), digest)
	}
	return int64(n), digest, s.explain("measure layer "+string(id), err)
}

// digestOf returns the digest of what was hashed.
func digestOf(hash hash.Hash) string { return "sha256:" + hex.EncodeToString(hash.Sum(nil)) }

// noteMeasure records the size and the digest of a layer, unless the layer was removed meanwhile.
func (s *Store) noteMeasure(ctx context.Context, id LayerID, size int64, digest string) error {
	unlock, err := s.lockRecords(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := s.record(id)
	if err != nil {
		return err
	}
	r.Size, r.Digest = size, digest
	return writeRecord(s.recordPath(id), r)
}

// lockRecords keeps other processes from removing or changing records of layers. It must be held
// only briefly.
func (s *Store) lockRecords(ctx context.Context) (unlock func(), err error) {
	return lock(ctx, s.path("layers.lock"), syscall.LOCK_EX)
}

// Remove deletes a layer. It is not an error if the layer does not exist. The caller knows that no
// image uses it; a layer of a base is not deleted.
func (s *Store) Remove(ctx context.Context, id LayerID) error {
	if !layerPattern.Get().MatchString(string(id)) {
		return fmt.Errorf("layer %q: %w", id, ErrNotFound)
	}
	bases, err := s.Bases()
	if err != nil {
		return err
	}
	for _, b := range bases {
		if slices.Contains(b.Layers, id) {
			return fmt.Errorf("layer %s belongs to base %s", id, b.Name)
		}
	}
	unlock, err := lock(ctx, s.path("lock"), syscall.LOCK_SH)
	if err != nil {
		return err
	}
	defer unlock()
	return s.explain("remove layer "+string(id), s.remove(ctx, id))
}

func (s *Store) remove(ctx context.Context, id LayerID) error {
	unlock, err := s.lockRecords(ctx)
	if err != nil {
		return err
	}
	err = removeRecord(s.recordPath(id))
	unlock()
	if err != nil {
		return err
	}
	return s.driver.Remove(ctx, s.path("layers", string(id)))
}

// CollectAfter is how old a layer must be for Collect. For a younger one, the process that made it
// may not have recorded yet which image it belongs to. A process that takes longer than that must
// use [Store.Hold].
const CollectAfter = 2 * time.Minute

// Collect deletes the imported bases that no publication names, and the layers that are in no base.
// It keeps those that inUse returns and those made within [CollectAfter]. It waits until no process
// is making a layer, and calls inUse after that. It returns the ids of the deleted layers.
func (s *Store) Collect(ctx context.Context, inUse func() (layers []LayerID, bases []string)) ([]LayerID, error) {
	madeBefore := time.Now().Add(-CollectAfter) // taken before the wait below, which must not count towards their age
	unnamed, err := s.unnamed(madeBefore)
	if err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, s.path("lock"), syscall.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer unlock()
	layers, busy := inUse() // called after unnamed: a base that no publication names gets no new users
	for _, base := range unnamed {
		if slices.Contains(busy, base) {
			continue
		}
		if err := s.RemoveBase(base); err != nil {
			return nil, err
		}
	}
	used := map[LayerID]bool{}
	for _, id := range layers {
		used[id] = true
	}
	bases, err := s.Bases()
	if err != nil {
		return nil, err
	}
	for _, b := range bases {
		for _, id := range b.Layers {
			used[id] = true
		}
	}
	records, err := s.records()
	if err != nil {
		return nil, err
	}
	var gone []LayerID
	for _, r := range records {
		if used[r.ID] || r.Created.After(madeBefore) {
			continue
		}
		if err := s.remove(ctx, r.ID); err != nil {
			return gone, s.explain("remove layer "+string(r.ID), err)
		}
		gone = append(gone, r.ID)
	}
	return gone, nil
}

// unnamed returns the imported bases that were made before a time and that no publication names.
func (s *Store) unnamed(madeBefore time.Time) ([]string, error) {
	bases, err := s.Bases()
	if err != nil {
		return nil, err
	}
	published, err := s.Publications()
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for _, p := range published {
		named[p.Base] = true
	}
	var names []string
	for _, b := range bases {
		if strings.HasPrefix(b.Name, ImportPrefix) && !named[b.Name] && b.Created.Before(madeBefore) {
			names = append(names, b.Name)
		}
	}
	return names, nil
}

var layerPattern = lazyregexp.New(`^layer-[0-9a-f]{16}$`)

func (s *Store) recordPath(id LayerID) string { return s.path("layers", string(id)+".json") }

func (s *Store) record(id LayerID) (layerRecord, error) {
	var r layerRecord
	if !layerPattern.Get().MatchString(string(id)) {
		return r, fmt.Errorf("layer %q: %w", id, ErrNotFound)
	}
	if err := readRecord(s.recordPath(id), &r); err != nil {
		return r, fmt.Errorf("layer %s: %w", id, err)
	}
	return r, nil
}

func (s *Store) records() ([]layerRecord, error) {
	return readRecords[layerRecord](s.path("layers"))
}

// explain adds to err what was being done, and for a full disk what to do about it. It returns nil
// for nil. It examines the error's text too, because drivers work in other processes and return
// their errors as text only.
func (s *Store) explain(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case durable.IsFull(err),
		strings.Contains(err.Error(), syscall.ENOSPC.Error()), strings.Contains(err.Error(), syscall.EDQUOT.Error()):
		return fmt.Errorf("%s: %w%s: %w", doing, &fs.PathError{Op: "disk full in the store", Path: s.dir, Err: ErrFull}, durable.Left(s.dir), err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// endReader passes a tar archive through and records whether it is complete. A complete archive
// ends in a block of zeros. Without it the archive was cut between two files, which readers of tar
// do not notice.
type endReader struct {
	r    io.Reader
	last []byte // at most a block
}

const tarBlock = 512

func (e *endReader) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	e.last = append(e.last, b[max(0, n-tarBlock):n]...)
	e.last = e.last[max(0, len(e.last)-tarBlock):]
	return n, err
}

// check reads the rest of the archive and checks its end.
func (e *endReader) check() error {
	if _, err := io.Copy(io.Discard, e); err != nil {
		return err
	}
	if !bytes.Equal(e.last, make([]byte, tarBlock)) {
		return errors.New("the archive is cut short: its end is missing")
	}
	return nil
}

// reporting is a writer that reports how many bytes have been written.
type reporting struct {
	io.Writer
	report func(int64)
	done   int64
}

func (r *reporting) Write(b []byte) (int, error) {
	n, err := r.Writer.Write(b)
	r.done += int64(n)
	r.report(r.done)
	return n, err
}

// counter counts the bytes written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// writeRecord replaces a JSON file atomically and waits until it is on the disk.
func writeRecord(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(path, append(b, '\n'), 0o600)
}

// removeRecord deletes a JSON file, if it exists, and waits until the deletion is on the disk.
func removeRecord(path string) error {
	if err := os.Remove(path); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// readRecord reads a JSON file. If the file does not exist, the error is ErrNotFound.
func readRecord(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return durable.Damaged(path, err)
	}
	return nil
}

// readRecords reads every JSON file of a directory, by name.
func readRecords[T any](dir string) ([]T, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []T
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" {
			continue
		}
		var v T
		err := readRecord(filepath.Join(dir, e.Name()), &v)
		if errors.Is(err, ErrNotFound) {
			continue // removed since the directory was read
		}
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}
