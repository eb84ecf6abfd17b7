package run

import (
	"bytes"
	"compress/gzip"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"bake/engine"
	"bake/internal/envvar"
	"bake/internal/login"
	"bake/internal/wholefile"
	"bake/step"
)

// boundaries collects the points at which the builds of a run have ended a stage.
type boundaries struct {
	mu  sync.Mutex
	all []step.Boundary
}

func (b *boundaries) add(one step.Boundary) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, one)
}

// unfinished reports whether a build has a further stage.
func unfinished(builds []engine.BuildResult) bool {
	return slices.ContainsFunc(builds, func(b engine.BuildResult) bool { return b.Unfinished })
}

// Key encrypts the data of a run that leaves a host. It is derived from a text of at
// least 16 characters.
type Key [sha256.Size]byte

// KeyVar is the environment variable with the text of the key, and KeyFileVar the one with
// the name of a file that contains that text.
const (
	KeyVar     = "BAKE_FLEET_KEY"
	KeyFileVar = "BAKE_FLEET_KEY_FILE"
)

// longestKey is the size limit of a key file, in bytes. It is far larger than any key.
const longestKey = 1 << 12

// ErrNoKey is the error of an environment that has neither a key nor the name of a key
// file.
var ErrNoKey = errors.New("set " + KeyVar + " to a secret that all workers share, such as the output of: openssl rand -hex 32")

// KeyOf returns the key in an environment, or else the one in the file that it names.
// Surrounding white space is ignored.
func KeyOf(env []string) (k Key, err error) {
	text, name := strings.TrimSpace(envvar.Get(env, KeyVar)), envvar.Get(env, KeyFileVar)
	switch {
	case text != "":
		return NewKey(text)
	case name == "":
		return k, ErrNoKey
	}
	f, err := os.Open(name)
	if err != nil {
		return k, fmt.Errorf("%s: %w", KeyFileVar, err)
	}
	defer f.Close()
	read, err := io.ReadAll(io.LimitReader(f, longestKey+1))
	if err != nil {
		return k, fmt.Errorf("%s: %w", KeyFileVar, err)
	}
	switch text = strings.TrimSpace(string(read)); {
	case len(read) > longestKey:
		err = fmt.Errorf("it has more than %d bytes; it must contain only a key", longestKey)
	case text == "":
		err = errors.New("it is empty")
	default:
		k, err = NewKey(text)
	}
	if err != nil {
		return k, fmt.Errorf("%s names %s: %w", KeyFileVar, name, err)
	}
	return k, nil
}

// NewKey returns the key derived from a text.
func NewKey(text string) (k Key, err error) {
	if len(text) < 16 {
		return k, errors.New(KeyVar + " is too short: it must have at least 16 characters, such as the output of: openssl rand -hex 32")
	}
	return sha256.Sum256([]byte("bake fleet " + text)), nil
}

// Seal encrypts and authenticates data: without the key it can be neither read nor
// changed.
func (k Key) Seal(data []byte) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return aead.Seal(nonce, nonce, data, nil), nil
}

// Open decrypts what Seal has encrypted.
func (k Key) Open(sealed []byte) ([]byte, error) {
	aead, err := k.aead()
	if err != nil {
		return nil, err
	}
	if len(sealed) < aead.NonceSize() {
		return nil, errKey
	}
	data, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], nil)
	if err != nil {
		return nil, errKey
	}
	return data, nil
}

var errKey = errors.New("it was encrypted with another key, or has been changed: " + KeyVar + " must be the same on all workers")

func (k Key) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// exported is what another host needs to resume a run.
type exported struct {
	Run     string            `json:"run"`
	Journal []byte            `json:"journal"`
	Ledger  []byte            `json:"ledger,omitempty"` // nil: the run owns nothing
	Logins  map[string][]byte `json:"logins,omitempty"` // files, by name
	Parts   []byte            `json:"parts,omitempty"`  // part of its log in the reports; nil: none
}

// exportLimit is the size limit of an uncompressed export, in bytes. It is far larger than
// the state of any run.
const exportLimit = 8 << 20

// Export returns the state that another host needs to resume a run that has ended a stage,
// or whose process is dead: its journal, its ledger and the logins of its machines,
// encrypted.
func (s State) Export(run string, key Key) ([]byte, error) {
	e := exported{Run: run, Logins: map[string][]byte{}}
	var err error
	if e.Journal, err = stateFile(s.Journal(run)); err != nil {
		return nil, fmt.Errorf("the state of run %s: %w", run, err)
	}
	if e.Ledger, err = stateFile(s.Ledger(run)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the state of run %s: %w", run, err)
	}
	if e.Parts, err = stateFile(s.parts(run)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the state of run %s: %w", run, err)
	}
	files, err := fs.Glob(os.DirFS(s.keys(run)), "*")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		if e.Logins[name], err = stateFile(filepath.Join(s.keys(run), name)); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return key.Seal(packed.Bytes())
}

// Import restores the state of a run that Export has returned on this host, and returns
// the run's id. If this host has continued the run since, its own state is newer and is
// kept. It is an error if the run is in progress here.
func (s State) Import(sealed []byte, key Key) (run string, err error) {
	e, err := unpack(sealed, key)
	if err != nil {
		return "", fmt.Errorf("the state of the run cannot be read: %w", err)
	}
	newer, err := s.knowsMore(e)
	if err != nil || newer {
		return e.Run, err
	}
	if err := errors.Join(os.MkdirAll(s.Ledgers(), 0o700), os.MkdirAll(s.Runs(), 0o700), os.RemoveAll(s.keys(e.Run))); err != nil {
		return "", err
	}
	if err := login.Import(s.keys(e.Run), e.Logins); err != nil {
		return "", err
	}
	put := func(path string, data []byte) error {
		if data == nil {
			return os.RemoveAll(path)
		}
		return wholefile.WriteData(path, 0o600, data)
	}
	err = errors.Join(put(s.Ledger(e.Run), e.Ledger), put(s.parts(e.Run), e.Parts))
	if err == nil { // last, because the journal makes the run resumable
		err = wholefile.WriteData(s.Journal(e.Run), 0o600, e.Journal)
	}
	return e.Run, err
}

func unpack(sealed []byte, key Key) (e exported, err error) {
	packed, err := key.Open(sealed)
	if err != nil {
		return e, err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return e, err
	}
	text, err := io.ReadAll(io.LimitReader(r, exportLimit))
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return e, err
	}
	if e.Run == "" || strings.ContainsAny(e.Run, `/\`) || strings.HasPrefix(e.Run, ".") {
		return e, fmt.Errorf("%q is not the id of a run", e.Run)
	}
	return e, nil
}

// knowsMore reports whether the state on this host is newer than e: the run was continued
// here after e was exported, by a process that has died.
func (s State) knowsMore(e exported) (bool, error) {
	var m Memory
	_, err := step.ReadJournal(s.Journal(e.Run), &m)
	switch {
	case errors.Is(err, step.ErrLive):
		return false, fmt.Errorf("run %s is in progress on this host: %w", e.Run, err)
	case err != nil: // missing, or unreadable
		return false, nil
	}
	own, err := stateFile(s.Journal(e.Run))
	if err != nil {
		return false, err
	}
	if len(own) != len(e.Journal) || !bytes.Equal(own, e.Journal) {
		return len(own) > len(e.Journal) && bytes.HasPrefix(own, e.Journal), nil
	}
	owned, err := stateFile(s.Ledger(e.Run)) // the journals are equal, but the ledger may have grown
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(owned) > len(e.Ledger) && bytes.HasPrefix(owned, e.Ledger), err
}

// ForgetStages deletes the state on this host of runs by stages that were last continued
// here before the given time. The host that continues such a run knows what it owns.
func (s State) ForgetStages(before time.Time) error {
	names, err := fs.Glob(os.DirFS(s.Ledgers()), "*.journal")
	errs := []error{err}
	for _, name := range names {
		run := strings.TrimSuffix(name, ".journal")
		info, err := os.Stat(s.Journal(run))
		if err != nil || !info.ModTime().Before(before) {
			continue
		}
		var m Memory
		if _, err := step.ReadJournal(s.Journal(run), &m); err == nil && m.Stages { // not in progress or unreadable
			errs = append(errs, s.Forget(run))
		}
	}
	return errors.Join(errs...)
}

// Forget deletes the state of a run that another host continues and that owns nothing on
// this host.
func (s State) Forget(run string) error {
	return errors.Join(os.RemoveAll(s.Journal(run)), os.RemoveAll(s.Ledger(run)), os.RemoveAll(s.parts(run)), os.RemoveAll(s.keys(run)))
}
