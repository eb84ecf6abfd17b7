package debian

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// release is the content of a suite's signed Release file.
type release struct {
	Suite, Codename  string
	Version          string    // such as 12.11
	Date, ValidUntil time.Time // ValidUntil is zero if the suite does not expire
	ByHash           bool      // files are also available below by-hash/SHA256
	Files            map[string]fileEntry
}

// fileEntry is the entry of a file in a Release file.
type fileEntry struct {
	Size   int64
	SHA256 string // hex
}

// parseEntry parses a size and a checksum in the format of the archive's files.
func parseEntry(size, sha256 string) (e fileEntry, ok bool) {
	n, err := strconv.ParseUint(size, 10, 63)
	sum, bad := hex.DecodeString(sha256)
	return fileEntry{int64(n), hex.EncodeToString(sum)}, err == nil && bad == nil && len(sum) == 32
}

// loadKeyring reads the keys that may sign a release: from file if it is not empty,
// otherwise the built-in keys and the host's.
func (d distribution) loadKeyring(host fs.FS, read func(string) ([]byte, error), file string) (openpgp.EntityList, error) {
	if file != "" {
		data, err := read(file)
		if err != nil {
			return nil, fmt.Errorf("read the keyring: %w", err)
		}
		return parseKeyring(file, data)
	}
	keys, err := parseKeyring("of "+d.Name, d.Keys)
	if err != nil {
		return nil, err
	}
	for _, ext := range []string{".gpg", ".pgp"} { // the extension differs between releases
		name := "usr/share/keyrings/" + d.Keyring + ext
		data, err := fs.ReadFile(host, name)
		if err != nil {
			continue
		}
		own, err := parseKeyring("/"+name, data)
		return append(keys, own...), err
	}
	return keys, nil
}

// parseKeyring parses keys, binary or armored.
func parseKeyring(name string, data []byte) (keys openpgp.EntityList, err error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		keys, err = openpgp.ReadArmoredKeyRing(bytes.NewReader(data))
	} else {
		keys, err = openpgp.ReadKeyRing(bytes.NewReader(data))
	}
	if err == nil && len(keys) == 0 {
		err = errors.New("it holds no key")
	}
	if err != nil {
		return nil, fmt.Errorf("keyring %s: %w", name, err)
	}
	return keys, nil
}

// verifyRelease verifies the signature of an InRelease file and returns the signed text only. One
// valid signature by a key in keys is sufficient.
func verifyRelease(inRelease []byte, keys openpgp.EntityList, now time.Time) (string, error) {
	block, rest := clearsign.Decode(inRelease)
	if block == nil {
		return "", errors.New("it is not a signed message: the mirror may be behind a login page or a proxy")
	}
	if len(bytes.TrimSpace(rest)) > 0 || !bytes.HasPrefix(bytes.TrimSpace(inRelease), []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return "", errors.New("there is text outside its signature")
	}
	_, err := block.VerifySignature(keys, &packet.Config{Time: func() time.Time { return now }})
	if err != nil {
		return "", fmt.Errorf("its signature does not verify with the keyring: %w", err)
	}
	return string(block.Plaintext), nil
}

// parseRelease parses the text of a Release file.
func parseRelease(text string) (*release, error) {
	var r *release
	err := parseControl(text, func(p paragraph) error {
		if r != nil {
			return errors.New("more than one paragraph")
		}
		r = &release{
			Suite:    p.get("Suite"),
			Codename: p.get("Codename"),
			Version:  p.get("Version"),
			ByHash:   p.get("Acquire-By-Hash") == "yes",
			Files:    map[string]fileEntry{},
		}
		var err error
		if r.Date, err = parseDate(p.get("Date")); err != nil {
			return fmt.Errorf("field Date: %w", err)
		}
		if v := p.get("Valid-Until"); v != "" {
			if r.ValidUntil, err = parseDate(v); err != nil {
				return fmt.Errorf("Valid-Until: %w", err)
			}
		}
		for line := range strings.Lines(p.get("SHA256")) {
			f := strings.Fields(line)
			if len(f) == 0 {
				continue
			}
			var e fileEntry
			ok := len(f) == 3
			if ok {
				e, ok = parseEntry(f[1], f[0])
			}
			if !ok {
				return fmt.Errorf("SHA256: %q is not an entry", clip(line))
			}
			r.Files[f[2]] = e
		}
		return nil
	})
	if err == nil && (r == nil || len(r.Files) == 0) {
		err = errors.New("it lists no files with a SHA256")
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// parseDate parses a date in a Release file, which is always in UTC.
func parseDate(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC1123, "Mon, _2 Jan 2006 15:04:05 MST", time.RFC1123Z} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a date", clip(s))
}

// checkDates rejects a release that has expired, because an attacker could hide security
// updates with it, or that is from the future. It tolerates a difference of one day between
// clocks.
func (r *release) checkDates(now time.Time) error {
	if r.expired(now) {
		return fmt.Errorf("it expired at %s: the mirror is out of date (or this host's clock is ahead); choose another with -mirror", r.ValidUntil.Format(time.RFC3339))
	}
	if r.Date.After(now.Add(24 * time.Hour)) {
		return fmt.Errorf("it is dated %s, which is in the future: set this host's clock", r.Date.Format(time.RFC3339))
	}
	return nil
}

func (r *release) expired(now time.Time) bool {
	return !r.ValidUntil.IsZero() && now.After(r.ValidUntil)
}

// index returns the Packages index of a component of src, whose release is r. It prefers gzip,
// which decompresses several times faster than xz and is not much larger.
func (r *release) index(src source, component, arch string) (indexItem, error) {
	// The Release file of the security suite calls its components updates/main and so on, but its
	// paths do not contain the prefix.
	dir := component + "/binary-" + arch
	for _, name := range []string{"Packages.gz", "Packages.xz"} {
		e, ok := r.Files[dir+"/"+name]
		if !ok {
			continue
		}
		file := name
		if r.ByHash { // remains valid while the mirror is being updated
			file = "by-hash/SHA256/" + e.SHA256
		}
		url := src.URI + "/dists/" + src.Suite + "/" + dir + "/" + file
		return indexItem{item{url, e}, path.Ext(name), src.URI}, nil
	}
	return indexItem{}, fmt.Errorf("it lists no %s/Packages.gz or .xz: the mirror does not serve %s for %s", dir, component, arch)
}

// indexItem is a Packages index to download.
type indexItem struct {
	item
	compression string // extension of the file name
	base        string // URL that the file names of its packages are relative to
}
