package image

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"bake/cloud/machine/layer"
	"bake/cloud/pipe"
)

// A stored image is a gzip-compressed tar archive with a description of the image and its layers,
// each as a tar. It is untrusted.
const (
	aboutName = "image.json"
	maxAbout  = 1 << 20
)

// storedLayer is the name of a layer in a stored image.
func storedLayer(n int) string { return fmt.Sprintf("layers/%d.tar", n) }

// digestRecord is the key of the record of a layer's entry with the digest of its content.
const digestRecord = "BAKE.digest"

// StoredLayer is a layer to store.
type StoredLayer struct {
	Size   int64  // number of bytes that Pack writes
	Digest string // of what Pack writes, as sha256:HEX; may be empty
	Pack   func(w io.Writer) error
}

// WriteStored writes a stored image, and calls report with the number of bytes of its layers that
// are done. It fails if [ReadStored] would refuse to decompress the result.
func WriteStored(w io.Writer, about []byte, layers []StoredLayer, report func(int64)) error {
	if len(about) > maxAbout || len(layers) > MaxLayers {
		return fmt.Errorf("the image has %d layers and a description of %d bytes: at most %d and %d can be stored", len(layers), len(about), MaxLayers, maxAbout)
	}
	var packed counter
	z, err := gzip.NewWriterLevel(io.MultiWriter(w, &packed), gzip.BestSpeed)
	if err != nil {
		return err
	}
	t := tar.NewWriter(&bombCheck{w: z, packed: &packed})
	entry := func(name string, size int64, digest string, content func(io.Writer) error) error {
		h := &tar.Header{Name: name, Mode: 0o600, Size: size}
		if digest != "" {
			h.PAXRecords = map[string]string{digestRecord: digest}
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		return content(t)
	}
	err = entry(aboutName, int64(len(about)), "", func(w io.Writer) error { _, err := w.Write(about); return err })
	done := int64(0)
	for i, l := range layers {
		if err == nil {
			err = entry(storedLayer(i), l.Size, l.Digest, func(w io.Writer) error {
				return l.Pack(&reporting{w, func(n int64) { report(done + n) }, 0})
			})
		}
		done += l.Size
	}
	if err == nil {
		err = t.Close()
	}
	if err == nil {
		err = z.Close()
	}
	return err
}

// bombCheck fails before it compresses content that a [bombGuard] would reject, at whatever point
// the guard checks.
type bombCheck struct {
	w      io.Writer
	packed *counter // counts the compressed bytes so far; it may lag behind
	plain  int64
}

func (b *bombCheck) Write(p []byte) (int, error) {
	b.plain += int64(len(p))
	if bomb(int64(*b.packed), b.plain) {
		return 0, fmt.Errorf("the first %d bytes of the image's content become %d: it would be taken for a decompression bomb when it is restored", b.plain, *b.packed)
	}
	return b.w.Write(p)
}

// ReadAbout returns the description in a stored image.
func ReadAbout(r io.Reader) (about []byte, err error) {
	err = readStored(r, func(t *tar.Reader, _ io.Reader) error {
		about, err = io.ReadAll(t)
		return err
	})
	return about, err
}

// ReadStored passes the layers of a stored image to unpack, one after the other, as tar streams,
// with the digests that the image declares for them, if any.
func ReadStored(r io.Reader, unpack func(digest string, layer io.Reader) error) error {
	return readStored(r, func(t *tar.Reader, plain io.Reader) error {
		for n := 0; ; n++ {
			h, err := t.Next()
			switch {
			case errors.Is(err, io.EOF):
				_, err := io.Copy(io.Discard, plain) // read the checksum at the end
				return err
			case err != nil:
				return err
			case !is(h, storedLayer(n)) || n == MaxLayers:
				return fmt.Errorf("an entry %.80q where a layer should be", h.Name)
			}
			if err := unpack(h.PAXRecords[digestRecord], t); err != nil {
				return fmt.Errorf("layer %d: %w", n, err)
			}
		}
	})
}

// readStored opens a stored image, reads up to its description, and calls read.
func readStored(r io.Reader, read func(t *tar.Reader, plain io.Reader) error) error {
	plain, err := decompress(r)
	if err != nil {
		return fmt.Errorf("no stored image: %w", err)
	}
	defer plain.Close()
	t := tar.NewReader(plain)
	h, err := t.Next()
	if err != nil || !is(h, aboutName) || h.Size > maxAbout {
		return errors.Join(errors.New("no stored image: it does not begin with the description of one"), err)
	}
	if err := read(t, plain); err != nil {
		return fmt.Errorf("the stored image is damaged: %w", err)
	}
	return nil
}

// is reports whether an entry is a file of that name that is not sparse: the size of a sparse file
// may far exceed the data sent.
func is(h *tar.Header, name string) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return false
		}
	}
	return h.Name == name && h.Typeflag == tar.TypeReg
}

// StoreImage writes a stored image with these layers and with about, the description of the image.
// It calls report with its progress.
func (s *Store) StoreImage(ctx context.Context, w io.Writer, about []byte, layers []LayerID, report func(done, of int64)) error {
	var stored []StoredLayer
	total := int64(0)
	for i, id := range layers {
		dir, err := s.Path(id)
		if err != nil {
			return err
		}
		size, digest, err := s.measure(ctx, id)
		if err != nil {
			return err
		}
		stored = append(stored, StoredLayer{size, digest, func(w io.Writer) error { return s.packRestorable(ctx, dir, w) }})
		total += size
		report(int64(i+1), int64(10*len(layers))) // measuring is about a tenth of the work
	}
	err := WriteStored(w, about, stored, func(n int64) { report(total+9*n, 10*total) })
	return s.explain("store an image", err)
}

// packRestorable packs a layer and fails if it could not be unpacked again.
func (s *Store) packRestorable(ctx context.Context, dir string, w io.Writer) error {
	pack := func(ctx context.Context, check io.Writer) error {
		return s.driver.Pack(ctx, dir, io.MultiWriter(w, check))
	}
	return pipe.Through(ctx, pack, layer.CheckHoles)
}

// RestoreImage makes the layers in a stored image and returns their ids in order. It reuses layers
// that the store already has. On error it makes none.
func (s *Store) RestoreImage(ctx context.Context, r io.Reader) (ids []LayerID, err error) {
	have, err := s.byDigest()
	if err != nil {
		return nil, s.explain("restore an image", err)
	}
	err = s.work(ctx, func(dir string) error {
		var layers []restoredLayer
		err := ReadStored(r, func(digest string, content io.Reader) error {
			l := restoredLayer{have[digest], digest, filepath.Join(dir, strconv.Itoa(len(layers)))}
			layers = append(layers, l)
			return s.restoreLayer(ctx, l, content)
		})
		if err == nil {
			err = syncFileSystem(s.dir)
		}
		if err != nil {
			return err
		}
		ids, err = s.adoptAll(layers, have)
		return err
	})
	return ids, s.explain("restore an image", err)
}

// byDigest returns the layers, keyed by the digests of the tars that they were made from and that
// they are packed as.
func (s *Store) byDigest() (map[string]LayerID, error) {
	records, err := s.records()
	have := map[string]LayerID{}
	for _, r := range records {
		have[r.DiffID], have[r.Digest] = r.ID, r.ID
	}
	delete(have, "") // unknown digests
	return have, err
}

// restoredLayer is a layer of a stored image.
type restoredLayer struct {
	id     LayerID // existing layer with this digest; may be empty
	digest string  // may be empty
	dir    string  // directory of the content, if there is no existing layer
}

// restoreLayer unpacks a layer that the store does not have. It verifies the declared digest even
// if the store has the layer, so that nobody gets an existing layer by its digest alone.
func (s *Store) restoreLayer(ctx context.Context, l restoredLayer, content io.Reader) error {
	hash := sha256.New()
	var err error
	if l.id != "" {
		_, err = io.Copy(hash, content)
	} else {
		err = s.unpack(ctx, io.TeeReader(content, hash), l.dir)
	}
	if got := digestOf(hash); err == nil && l.digest != "" && got != l.digest {
		err = fmt.Errorf("its content is %s and the image says %.80q", got, l.digest)
	}
	return err
}

// adoptAll makes layers of the restored directories. Directories with the same digest become one
// layer.
func (s *Store) adoptAll(layers []restoredLayer, have map[string]LayerID) (ids []LayerID, err error) {
	for _, l := range layers {
		id := have[l.digest]
		if id == "" {
			if id, err = s.adopt(l.dir, layerRecord{DiffID: l.digest}); err != nil {
				return nil, err // Collect will delete the layers already made
			}
		}
		if l.digest != "" {
			have[l.digest] = id
		}
		ids = append(ids, id)
	}
	return ids, nil
}
