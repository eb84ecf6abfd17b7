package sandbox

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// identify gives the machine its identity: at every boot its names and its resolver, and at the
// first boot it also replaces what the image has kept from the machine that it was made from. It
// runs with the machine's root in place.
func (b *bootSpec) identify() error {
	if err := os.WriteFile("/etc/hostname", []byte(b.Hostname+"\n"), 0o644); err != nil {
		return err
	}
	if !exists("/etc/hosts") {
		if err := os.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"), 0o644); err != nil {
			return err
		}
	}
	if b.Card != nil {
		if err := writeResolvConf(b.Card.NameServer.String()); err != nil {
			return err
		}
	}
	if !b.First {
		b.announced = hostKeyLines(hostKeysIn("/etc/ssh"), b.Hostname)
		return nil
	}
	if err := newMachineID(); err != nil {
		return err
	}
	keys, err := newHostKeys("/etc/ssh", b.Hostname)
	if err != nil {
		return fmt.Errorf("SSH host keys: %w", err)
	}
	b.announced = hostKeyLines(keys, b.Hostname)
	if b.User == "" {
		return nil
	}
	if err := b.loginUser(); err != nil {
		return fmt.Errorf("login user %s: %w", b.User, err)
	}
	return nil
}

// writeResolvConf writes resolv.conf like a DHCP client: as a plain file, or through a link
// if its target is in /run.
func writeResolvConf(server string) error {
	const path = "/etc/resolv.conf"
	target := path
	if to, err := os.Readlink(path); err == nil {
		if !filepath.IsAbs(to) {
			to = filepath.Join("/etc", to)
		}
		if strings.HasPrefix(to, "/run/") {
			target = to
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
		}
	}
	if target == path {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.WriteFile(target, []byte("nameserver "+server+"\noptions edns0\n"), 0o644)
}

func newMachineID() error {
	var id [16]byte
	rand.Read(id[:])
	const path = "/etc/machine-id"
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(path, []byte(hex.EncodeToString(id[:])+"\n"), 0o444); err != nil {
		return err
	}
	// Old images have a copy here, which would now differ: replace it with a link.
	const dbus = "/var/lib/dbus/machine-id"
	if st, err := os.Lstat(dbus); err == nil && st.Mode().IsRegular() {
		if err := os.Remove(dbus); err != nil {
			return err
		}
		return os.Symlink(path, dbus)
	}
	return nil
}

// hostKeyTypes are the types of a machine's SSH host keys.
var hostKeyTypes = []string{"ecdsa", "ed25519"}

// newHostKeys replaces the SSH host keys in dir and returns the public ones.
func newHostKeys(dir, hostname string) ([]ssh.PublicKey, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	old, err := filepath.Glob(filepath.Join(dir, "ssh_host_*"))
	if err != nil {
		return nil, err
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	comment := "root@" + hostname
	var public []ssh.PublicKey
	for _, key := range []struct {
		kind    string
		private interface{}
	}{{hostKeyTypes[0], ecKey}, {hostKeyTypes[1], edKey}} {
		signer, err := ssh.NewSignerFromKey(key.private)
		if err != nil {
			return nil, err
		}
		block, err := ssh.MarshalPrivateKey(key.private, comment)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, "ssh_host_"+key.kind+"_key")
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path+".pub", []byte(authorizedLine(signer.PublicKey(), comment)), 0o644); err != nil {
			return nil, err
		}
		public = append(public, signer.PublicKey())
	}
	return public, nil
}

// maxHostKeys is how many of the host keys on a machine's disk are shown.
const maxHostKeys = 16

// hostKeysIn returns the public host keys in dir. Files that are not what they should be are left
// out, since they are the machine's.
func hostKeysIn(dir string) (keys []ssh.PublicKey) {
	files, _ := filepath.Glob(filepath.Join(dir, "ssh_host_*_key.pub"))
	for _, file := range files[:min(len(files), maxHostKeys)] {
		text, err := readStart(os.OpenFile, file, 16<<10)
		if err != nil {
			continue
		}
		if key, _, _, _, err := ssh.ParseAuthorizedKey(text); err == nil {
			keys = append(keys, key)
		}
	}
	return keys
}

func authorizedLine(key ssh.PublicKey, comment string) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + comment + "\n"
}

// hostKeyLines returns the block that cloud-init prints on EC2's consoles, or "" without keys. From
// it a client knows the host keys before the first connection. Unlike cloud-init's it is printed at
// every boot, so that new keys are known too.
func hostKeyLines(keys []ssh.PublicKey, hostname string) string {
	if len(keys) == 0 {
		return ""
	}
	w := new(strings.Builder)
	comment := "root@" + hostname
	fmt.Fprintln(w, "-----BEGIN SSH HOST KEY FINGERPRINTS-----")
	for _, key := range keys {
		bits, name := keyKind(key)
		fmt.Fprintf(w, "%d %s %s (%s)\n", bits, ssh.FingerprintSHA256(key), comment, name)
	}
	fmt.Fprintln(w, "-----END SSH HOST KEY FINGERPRINTS-----")
	fmt.Fprintln(w, "-----BEGIN SSH HOST KEY KEYS-----")
	for _, key := range keys {
		fmt.Fprint(w, authorizedLine(key, comment))
	}
	fmt.Fprintln(w, "-----END SSH HOST KEY KEYS-----")
	return w.String()
}

// keyKind returns the size of a key in bits and the name of its kind, as ssh-keygen -l prints them.
func keyKind(key ssh.PublicKey) (bits int, name string) {
	name = strings.ToUpper(strings.TrimPrefix(key.Type(), "ssh-"))
	if c, ok := key.(ssh.CryptoPublicKey); ok {
		switch k := c.CryptoPublicKey().(type) {
		case *rsa.PublicKey:
			return k.N.BitLen(), name
		case *ecdsa.PublicKey:
			return k.Params().BitSize, "ECDSA"
		}
	}
	return 256, name
}

// loginUser creates the login user with its authorized keys and passwordless sudo.
func (b *bootSpec) loginUser() error {
	account, err := lookupAccount(b.User)
	if errors.Is(err, errNoAccount) {
		account, err = createAccount(b.User)
	}
	if err != nil {
		return err
	}
	// In a machine with a single user id, all files belong to root anyway.
	own := func(path string) error {
		if b.Mode == ModeSingle {
			return nil
		}
		return os.Lchown(path, account.uid, account.gid)
	}
	if !exists(account.home) {
		if err := makeHome(account.home, own); err != nil {
			return err
		}
	}
	dir := filepath.Join(account.home, ".ssh")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := own(dir); err != nil {
		return err
	}
	path := filepath.Join(dir, "authorized_keys")
	if err := appendLines(path, b.Keys, 0o600); err != nil {
		return err
	}
	if err := own(path); err != nil {
		return err
	}
	if account.uid == 0 || !exists("/etc/sudoers.d") {
		return nil
	}
	rule := b.User + " ALL=(ALL) NOPASSWD:ALL\n"
	if b.Mode == ModeSingle {
		rule += "Defaults env_keep += \"APT_CONFIG\"\n"
	}
	return os.WriteFile(filepath.Join("/etc/sudoers.d", "90-bake-"+strings.ReplaceAll(b.User, ".", "_")), []byte(rule), 0o440)
}

// makeHome creates a home directory with the contents of /etc/skel.
func makeHome(home string, own func(string) error) error {
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	if exists("/etc/skel") {
		if err := os.CopyFS(home, os.DirFS("/etc/skel")); err != nil {
			return err
		}
	}
	return filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return own(path)
	})
}

// appendLines adds to a file those of lines that it does not contain yet.
func appendLines(path string, lines []string, mode os.FileMode) error {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := string(b)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if line != "" && !strings.Contains("\n"+text, "\n"+line+"\n") {
			text += line + "\n"
		}
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// account is a user of the machine, as /etc/passwd and /etc/group have it.
type account struct {
	name, home, shell string
	uid, gid          int
	groups            []uint32 // other than gid
}

var errNoAccount = errors.New("no such user")

func lookupAccount(name string) (*account, error) {
	var found *account
	err := eachEntry("/etc/passwd", 7, func(f []string) error {
		if f[0] != name || found != nil {
			return nil
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		found = &account{name: name, uid: uid, gid: gid, home: f[5], shell: f[6]}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %s", errNoAccount, name)
	}
	if found.shell == "" {
		found.shell = "/bin/sh"
	}
	err = eachEntry("/etc/group", 4, func(f []string) error {
		for member := range strings.SplitSeq(f[3], ",") {
			if gid, err := strconv.ParseUint(f[2], 10, 32); member == name && err == nil {
				found.groups = append(found.groups, uint32(gid))
			}
		}
		return nil
	})
	return found, err
}

// createAccount adds a user with the first free id for regular users, and a group of the
// same name.
func createAccount(name string) (*account, error) {
	const firstPerson, lastPerson = 1000, 60000
	taken := make(map[int]bool)
	groupID := -1
	note := func(f []string) error {
		id, err := strconv.Atoi(f[2])
		taken[id] = true
		return err
	}
	if err := eachEntry("/etc/passwd", 7, note); err != nil {
		return nil, err
	}
	err := eachEntry("/etc/group", 4, func(f []string) error {
		if f[0] == name {
			groupID, _ = strconv.Atoi(f[2])
		}
		return note(f)
	})
	if err != nil {
		return nil, err
	}
	id := firstPerson
	for taken[id] {
		id++
	}
	if id > lastPerson {
		return nil, errors.New("no user id is free")
	}
	a := &account{name: name, uid: id, gid: id, home: "/home/" + name, shell: "/bin/sh"}
	if exists("/bin/bash") {
		a.shell = "/bin/bash"
	}
	if groupID >= 0 {
		a.gid = groupID
	} else {
		if err := appendLines("/etc/group", []string{fmt.Sprintf("%s:x:%d:", name, id)}, 0o644); err != nil {
			return nil, err
		}
		if exists("/etc/gshadow") {
			if err := addTo("/etc/gshadow", name+":!::"); err != nil {
				return nil, err
			}
		}
	}
	if exists("/etc/shadow") {
		// No password matches this one. The account must not be locked, because sshd refuses locked
		// accounts.
		if err := addTo("/etc/shadow", name+":*:19000:0:99999:7:::"); err != nil {
			return nil, err
		}
	}
	return a, appendLines("/etc/passwd", []string{fmt.Sprintf("%s:x:%d:%d::%s:%s", name, a.uid, a.gid, a.home, a.shell)}, 0o644)
}

// addTo appends a line to a file and keeps the file's owner and mode.
func addTo(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	return errors.Join(err, f.Close())
}

// eachEntry calls do with the fields of every complete line of a file in the format of /etc/passwd.
// A file that does not exist has no lines.
func eachEntry(path string, fields int, do func([]string) error) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		parts := strings.Split(s.Text(), ":")
		if len(parts) < fields {
			continue
		}
		if err := do(parts); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return s.Err()
}
