// Package rpmdb reads the databases of installed packages that RPM uses: SQLite, its own
// "ndb", and Berkeley DB. The databases come from untrusted machines: whatever their
// content, reading takes time and memory in proportion to their size.
package rpmdb

import (
	"bytes"
	"errors"
	"fmt"
)

// Package is an installed package.
type Package struct {
	Name, Version, Release string
	Epoch                  *int32
	Arch                   string
	License                string
	Vendor                 string
	SourceRPM              string // file name
	Files                  []string
}

// Limits of a database. A large system has some thousand packages with some hundred
// thousand files.
const (
	maxPackages = 200_000
	maxFiles    = 2 << 20
)

// Read returns the packages of a database, in its order. log is the content of the file
// next to an SQLite database whose name ends in -wal, with changes that are not in the
// database yet; it is empty if there is none. The keys that RPM stores as packages are
// left out.
func Read(db, log []byte) ([]Package, error) {
	var list []Package
	files := 0
	err := blobs(db, log, func(blob []byte) error {
		p, err := header(blob)
		if err != nil {
			return err
		}
		if p.Name != "gpg-pubkey" {
			list = append(list, p)
		}
		if files += len(p.Files); files > maxFiles || len(list) > maxPackages {
			return damaged("it has more than %d packages, or more than %d files of them", maxPackages, maxFiles)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// blobs calls yield with the header of each package.
func blobs(db, log []byte, yield func([]byte) error) error {
	switch {
	case bytes.HasPrefix(db, []byte(sqliteMagic)):
		return sqliteBlobs(db, log, yield)
	case bytes.HasPrefix(db, []byte(ndbMagic)):
		return ndbBlobs(db, yield)
	case berkeleyOrder(db) != nil:
		return berkeleyBlobs(db, yield)
	}
	return errors.New("this is not an RPM database (SQLite, ndb or Berkeley DB)")
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("the RPM database is damaged: "+format, args...)
}

// section returns n bytes of b at off; ok is false if b does not have them.
func section(b []byte, off, n int64) (part []byte, ok bool) {
	if off < 0 || n < 0 || off > int64(len(b)) || n > int64(len(b))-off {
		return nil, false
	}
	return b[off : off+n], true
}
