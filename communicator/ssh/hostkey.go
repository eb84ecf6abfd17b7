package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"bake/internal/hostpath"
	"bake/step"
)

// hostKeys decides which host keys are accepted from one host, and remembers the accepted ones.
type hostKeys struct {
	mode       HostKeyCheck
	configured []ssh.PublicKey                                    // ssh_host_keys
	known      ssh.HostKeyCallback                                // ssh_known_hosts_file, or nil
	console    func(ctx context.Context) ([]ssh.PublicKey, error) // or nil

	// onConsole holds the keys that the console shows. Only one attempt to log in runs at a time,
	// and only that attempt uses onConsole and asked.
	onConsole []ssh.PublicKey
	asked     time.Time // when the console was last read

	mu      sync.Mutex
	doubted time.Time       // since when refused keys might still appear on the console; zero if none was refused
	pinned  []ssh.PublicKey // set at the first login: all keys that are known to be the host's
	source  string          // where they are known from
}

// Limits for reading the console: how long one read may delay connecting, how often it is read, and
// how long the console may take to show a key that the machine uses: a machine with new keys may
// have to shut down and boot first.
const (
	consolePatience = 3 * time.Second
	consoleSpacing  = time.Second
	consoleLag      = 2 * time.Minute
)

// byAuthority is a value of source.
const byAuthority = "certified by an authority listed in ssh_known_hosts_file"

// expectation is what is known about a host's keys before it presents one.
type expectation struct {
	addr      string
	keys      []ssh.PublicKey // empty if nothing is known
	source    string          // where they are known from
	final     bool            // the user listed the keys: the console cannot add any
	certified bool            // the user listed authorities that certify the host's keys
}

// expected returns what is known, from the most reliable source that knows anything.
func (h *hostKeys) expected(ctx context.Context, addr string) expectation {
	if h.mode == Off {
		return expectation{addr: addr}
	}
	final := len(h.configured) > 0
	keys, certified := listed(h.known, addr)
	final = final || len(keys) > 0
	h.mu.Lock()
	pinned, source := slices.Clone(h.pinned), h.source
	h.mu.Unlock()
	switch {
	case len(pinned) > 0:
		return expectation{addr, pinned, source, final, certified}
	case len(h.configured) > 0:
		return expectation{addr, h.configured, "listed in ssh_host_keys", true, certified}
	case len(keys) > 0:
		return expectation{addr, keys, "listed in ssh_known_hosts_file", true, certified}
	case certified:
		return expectation{addr: addr, certified: true}
	case len(h.onConsole) == 0:
		h.readConsole(ctx)
	}
	return expectation{addr, h.onConsole, "printed on the machine's console", false, false}
}

// readConsole reads the console, unless it was read just now.
func (h *hostKeys) readConsole(ctx context.Context) {
	if h.console == nil || time.Since(h.asked) < consoleSpacing {
		return
	}
	h.asked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, consolePatience)
	defer cancel()
	if keys, err := h.console(ctx); err == nil && len(keys) > 0 {
		h.onConsole = keys
	}
}

// listed returns the keys that a known_hosts file lists for addr, and whether it lists authorities
// that certify keys for it.
func listed(known ssh.HostKeyCallback, addr string) (keys []ssh.PublicKey, certified bool) {
	if known == nil {
		return nil, false
	}
	var mismatch *knownhosts.KeyError
	if errors.As(known(addr, noAddr{}, noKey{}), &mismatch) {
		for _, k := range mismatch.Want {
			if isAuthority(k) {
				certified = true
			} else {
				keys = append(keys, k.Key)
			}
		}
	}
	return keys, certified
}

// isAuthority reports whether a line of a known_hosts file is for an authority. The library parses
// that but does not expose it.
func isAuthority(k knownhosts.KnownKey) bool {
	b, err := os.ReadFile(k.Filename)
	if err != nil {
		return false
	}
	lines := bytes.Split(b, []byte("\n"))
	return k.Line <= len(lines) && bytes.HasPrefix(bytes.TrimSpace(lines[k.Line-1]), []byte("@cert-authority"))
}

// noKey is a key that no file lists. Looking it up makes the library return the listed keys.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("not a key") }

type noAddr struct{}

func (noAddr) Network() string { return "tcp" }
func (noAddr) String() string  { return "0.0.0.0:0" }

// algorithms returns the algorithms with those of the known keys first, so that a host with several
// keys presents a known one. If an authority is listed, certificates come before them. Nil means
// the default order.
func (e expectation) algorithms() (names []string) {
	if e.certified {
		for _, name := range ssh.SupportedAlgorithms().HostKeys {
			if strings.Contains(name, "-cert-v01@") {
				names = append(names, name)
			}
		}
	}
	for _, k := range e.keys {
		if k.Type() == ssh.KeyAlgoRSA {
			names = append(names, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		}
		names = append(names, k.Type())
	}
	if len(names) == 0 {
		return nil
	}
	var all []string
	for _, name := range append(names, ssh.SupportedAlgorithms().HostKeys...) {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// check is the state of the host key check in one handshake.
type check struct {
	expectation
	ctx      context.Context
	hostKeys *hostKeys
	shown    ssh.PublicKey
	added    []ssh.PublicKey // new keys on the console: the machine has changed its keys
	err      error
}

func (h *hostKeys) checking(ctx context.Context, e expectation) *check {
	return &check{expectation: e, ctx: ctx, hostKeys: h}
}

func (c *check) callback(addr string, remote net.Addr, key ssh.PublicKey) error {
	c.shown = key
	c.err = c.verdict(addr, remote, key)
	return c.err
}

// contains reports whether key is one of keys, or a certificate of one.
func contains(keys []ssh.PublicKey, key ssh.PublicKey) bool {
	return slices.ContainsFunc(keys, func(k ssh.PublicKey) bool {
		if cert, ok := key.(*ssh.Certificate); ok && bytes.Equal(k.Marshal(), cert.Key.Marshal()) {
			return true
		}
		return bytes.Equal(k.Marshal(), key.Marshal())
	})
}

func (c *check) verdict(addr string, remote net.Addr, key ssh.PublicKey) error {
	h := c.hostKeys
	if h.mode == Off {
		return nil
	}
	if h.revoked(addr, remote, key) {
		return fatal("the host key that %s presents (%s) is marked as revoked in ssh_known_hosts_file", c.addr, describe(key))
	}
	if len(c.keys) > 0 {
		if contains(c.keys, key) {
			h.settled()
			return nil
		}
		if c.certified && h.known(addr, remote, key) == nil {
			c.keys, c.source = append(slices.Clone(c.keys), key), byAuthority
			h.settled()
			return nil
		}
		wrong := &HostKeyError{addr: c.addr, shown: key, expected: c.keys, source: c.source}
		if c.final || h.console == nil {
			return &fatalError{wrong}
		}
		// A machine that creates new keys at a later boot prints them on the console.
		h.readConsole(c.ctx)
		if contains(h.onConsole, key) {
			c.added, c.source = h.onConsole, "printed on the machine's console"
			h.settled()
			return nil
		}
		if h.doubting() < consoleLag {
			return wrong
		}
		return &fatalError{wrong}
	}
	if h.known != nil {
		err := h.known(addr, remote, key)
		if err == nil { // signed by an authority that the file lists
			c.keys, c.source = []ssh.PublicKey{key}, byAuthority
			return nil
		}
		if c.certified {
			return c.uncertified(key, err)
		}
	}
	if h.mode != Strict {
		return nil
	}
	if h.console != nil {
		return fmt.Errorf(`the host key of %s (%s) is not known yet: it has not appeared on the machine's console (ssh_host_key_check = "strict")`, c.addr, describe(key))
	}
	return fatal(`the host key of %s (%s) is not known, and ssh_host_key_check = "strict" trusts only keys known beforehand; add it to ssh_host_keys or ssh_known_hosts_file`, c.addr, describe(key))
}

// revoked reports whether the known_hosts file revokes the key, the key that it certifies, or the
// authority that certified it, even if they are listed elsewhere too.
func (h *hostKeys) revoked(addr string, remote net.Addr, key ssh.PublicKey) bool {
	keys := []ssh.PublicKey{key}
	if cert, ok := key.(*ssh.Certificate); ok {
		keys = []ssh.PublicKey{cert.Key, cert.SignatureKey}
	}
	return h.known != nil && slices.ContainsFunc(keys, func(k ssh.PublicKey) bool {
		var revoked *knownhosts.RevokedError
		return errors.As(h.known(addr, remote, k), &revoked)
	})
}

// uncertified refuses a key without a valid certificate from an authority, if the user has listed
// one for the host.
func (c *check) uncertified(key ssh.PublicKey, why error) error {
	if _, ok := key.(*ssh.Certificate); ok {
		return fatal("the host certificate that %s presents (%s) does not hold: %s; renew it, or list its authority in ssh_known_hosts_file",
			c.addr, describe(key), strings.TrimPrefix(why.Error(), "ssh: "))
	}
	err := fmt.Errorf("%s presents the host key %s without a certificate, but ssh_known_hosts_file lists an authority (@cert-authority) for it; "+
		"set HostCertificate in its sshd_config, or list the key in ssh_host_keys", c.addr, describe(key))
	if c.hostKeys.console == nil {
		return &fatalError{err}
	}
	return err // a new machine may get its certificate late
}

// settled resets the doubts about the host's keys.
func (h *hostKeys) settled() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.doubted = time.Time{}
}

// doubting returns for how long the host has presented unexpected keys.
func (h *hostKeys) doubting() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.doubted.IsZero() {
		h.doubted = time.Now()
	}
	return time.Since(h.doubted)
}

// accept pins the known keys after a successful login. It tells the user the first time, and when
// the keys have changed.
func (h *hostKeys) accept(ctx context.Context, s *step.Scope, where string, c *check) {
	h.mu.Lock()
	first := len(h.pinned) == 0
	switch {
	case first && len(c.keys) > 0:
		h.pinned, h.source = slices.Clone(c.keys), c.source
	case first:
		h.pinned, h.source = []ssh.PublicKey{c.shown}, "seen earlier in this build"
	case len(c.added) > 0:
		h.pinned, h.source = append(h.pinned, c.added...), c.source
	}
	h.mu.Unlock()
	switch {
	case first && h.mode == Off:
		s.Say(ctx, `Host key of %s is %s. It is not checked (ssh_host_key_check = "off").`, where, describe(c.shown))
	case first && len(c.keys) > 0, len(c.added) > 0:
		s.Say(ctx, "Host key of %s is verified: %s is %s.", where, describe(c.shown), c.source)
	case first:
		s.Say(ctx, "Host key of %s is %s. It was not known beforehand, so the first key seen is trusted; from now on only this machine's keys are.", where, describe(c.shown))
	}
}

// learn pins further keys that were received over a trusted connection, and returns the new ones.
// With "strict" it learns none.
func (h *hostKeys) learn(keys []ssh.PublicKey) (learned []ssh.PublicKey) {
	if h.mode != Pin {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range keys {
		if len(h.pinned) < maxPinned && !contains(h.pinned, k) {
			h.pinned = append(h.pinned, k)
			learned = append(learned, k)
		}
	}
	return learned
}

// unknown returns the keys that are not pinned.
func (h *hostKeys) unknown(keys []ssh.PublicKey) []ssh.PublicKey {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(keys, func(k ssh.PublicKey) bool { return contains(h.pinned, k) })
}

// lines returns the pinned keys in the format of authorized_keys; none if keys are not checked.
func (h *hostKeys) lines() (lines []string) {
	if h.mode == Off {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.pinned {
		lines = append(lines, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))))
	}
	return lines
}

// maxPinned limits how many keys a host may have.
const maxPinned = 64

// HostKeyError is the error for a host that presented an unexpected key.
type HostKeyError struct {
	addr     string
	shown    ssh.PublicKey
	expected []ssh.PublicKey
	source   string
}

func (e *HostKeyError) Error() string {
	var right []string
	for _, k := range e.expected {
		right = append(right, describe(k))
	}
	return fmt.Sprintf("%s presents the host key %s, but its host keys are %s (%s). "+
		"Either something is intercepting the connection, or the machine has new host keys. "+
		"If they are new, keep the old ones until the build is over (cloud-init: ssh_deletekeys: false), "+
		"list the new ones in ssh_host_keys, or accept any key with ssh_host_key_check = \"off\"",
		e.addr, describe(e.shown), strings.Join(right, ", "), e.source)
}

func describe(k ssh.PublicKey) string { return k.Type() + " " + ssh.FingerprintSHA256(k) }

func parseHostKeys(lines []string) (keys []ssh.PublicKey, err error) {
	for _, line := range lines {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("%q is not a public key such as \"ssh-ed25519 AAAA...\" (%w)", line, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func loadKnownHosts(path string) (ssh.HostKeyCallback, error) {
	path, err := ExpandHome(path)
	if err != nil {
		return nil, err
	}
	if err := hostpath.Check(path); err != nil {
		return nil, err
	}
	return knownhosts.New(path)
}
