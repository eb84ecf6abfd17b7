package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"bake/step"
)

// hostKeys decides which host keys one host may identify itself with, and
// remembers the one it did.
type hostKeys struct {
	strict     bool
	configured []ssh.PublicKey                                    // ssh_host_keys
	known      ssh.HostKeyCallback                                // ssh_known_hosts_file, or nil
	console    func(ctx context.Context) ([]ssh.PublicKey, error) // or nil

	mu        sync.Mutex
	pinned    ssh.PublicKey // since the first login
	onConsole []ssh.PublicKey
	asked     time.Time // when the console was last read
}

// How long one look at the console may hold up connecting, and how often it is looked at.
const (
	consolePatience = 3 * time.Second
	consoleSpacing  = time.Second
)

// expectation is what is known about a host's keys before it shows one.
type expectation struct {
	addr   string
	keys   []ssh.PublicKey // none: nothing is known
	source string          // where they are known from
}

// expected gathers what is known, from the most certain source that knows anything.
func (h *hostKeys) expected(ctx context.Context, addr string) expectation {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pinned != nil {
		return expectation{addr, []ssh.PublicKey{h.pinned}, "was shown earlier in this build"}
	}
	if len(h.configured) > 0 {
		return expectation{addr, h.configured, "is listed in ssh_host_keys"}
	}
	if keys := listed(h.known, addr); len(keys) > 0 {
		return expectation{addr, keys, "is listed in ssh_known_hosts_file"}
	}
	if h.console != nil && len(h.onConsole) == 0 && time.Since(h.asked) >= consoleSpacing {
		h.asked = time.Now()
		ctx, cancel := context.WithTimeout(ctx, consolePatience)
		defer cancel()
		if keys, err := h.console(ctx); err == nil {
			h.onConsole = keys
		}
	}
	return expectation{addr, h.onConsole, "is printed on the machine's console"}
}

// listed returns the keys that a known hosts file has for addr.
func listed(known ssh.HostKeyCallback, addr string) (keys []ssh.PublicKey) {
	if known == nil {
		return nil
	}
	var mismatch *knownhosts.KeyError
	if errors.As(known(addr, noAddr{}, noKey{}), &mismatch) {
		for _, k := range mismatch.Want {
			keys = append(keys, k.Key)
		}
	}
	return keys
}

// noKey is a key that no file lists, so that asking for it brings out those that are.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return nil }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("not a key") }

type noAddr struct{}

func (noAddr) Network() string { return "tcp" }
func (noAddr) String() string  { return "0.0.0.0:0" }

// algorithms restricts the negotiation to keys that could be accepted. Nil means
// that any will do.
func (e expectation) algorithms() (names []string) {
	for _, k := range e.keys {
		if k.Type() == ssh.KeyAlgoRSA {
			names = append(names, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		}
		names = append(names, k.Type())
	}
	return slices.Compact(names)
}

// check is the verdict of one handshake.
type check struct {
	expectation
	hostKeys *hostKeys
	shown    ssh.PublicKey
	err      error
}

func (h *hostKeys) checking(e expectation) *check { return &check{expectation: e, hostKeys: h} }

func (c *check) callback(addr string, remote net.Addr, key ssh.PublicKey) error {
	c.shown = key
	c.err = c.verdict(addr, remote, key)
	return c.err
}

func (c *check) verdict(addr string, remote net.Addr, key ssh.PublicKey) error {
	h := c.hostKeys
	has := func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), key.Marshal()) }
	if len(c.keys) > 0 {
		if slices.ContainsFunc(c.keys, has) {
			return nil
		}
		return &fatalError{&HostKeyError{Addr: c.addr, Shown: key, Expected: c.keys, source: c.source}}
	}
	var revoked *knownhosts.RevokedError
	if h.known != nil {
		err := h.known(addr, remote, key)
		if errors.As(err, &revoked) {
			return fatal("the host key that %s shows (%s) is marked as revoked in ssh_known_hosts_file", c.addr, describe(key))
		}
		if err == nil { // signed by an authority that the file lists
			c.keys, c.source = []ssh.PublicKey{key}, "is certified by an authority listed in ssh_known_hosts_file"
			return nil
		}
	}
	if !h.strict {
		return nil
	}
	if h.console != nil {
		return fmt.Errorf(`the host key of %s (%s) is not known yet: the machine's console does not show it (ssh_host_key_check = "strict")`, c.addr, describe(key))
	}
	return fatal(`the host key of %s (%s) is not known, and ssh_host_key_check = "strict" trusts none that was not known beforehand; give it in ssh_host_keys or ssh_known_hosts_file`, c.addr, describe(key))
}

// accept pins the key shown in a handshake that ended in a login, and tells the
// user the first time.
func (h *hostKeys) accept(ctx context.Context, s *step.Scope, where string, c *check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pinned != nil {
		return
	}
	h.pinned = c.shown
	if len(c.keys) > 0 {
		s.Say(ctx, "Host key of %s is verified: %s %s.", where, describe(c.shown), c.source)
	} else {
		s.Say(ctx, "Host key of %s is %s. It was not known beforehand, so the first key seen is trusted; from now on no other is.", where, describe(c.shown))
	}
}

// HostKeyError says that a host showed another key than it should have.
type HostKeyError struct {
	Addr     string
	Shown    ssh.PublicKey
	Expected []ssh.PublicKey
	source   string
}

func (e *HostKeyError) Error() string {
	text := fmt.Sprintf("%s shows the host key %s, but the right one is ", e.Addr, describe(e.Shown))
	for i, k := range e.Expected {
		if i > 0 {
			text += " or "
		}
		text += describe(k)
	}
	return text + ", which " + e.source + ". " +
		"Either something between here and the machine answers in its place, or the machine made itself new host keys. " +
		"In the first case find out what it is; in the second, let the image keep its keys until the build is over (cloud-init: ssh_deletekeys: false)"
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
	return knownhosts.New(path)
}
