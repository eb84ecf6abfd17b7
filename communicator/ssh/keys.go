package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"bake/internal/hostpath"
)

// PublicKey is the public key of the private key in a file.
func PublicKey(keyFile string) (ssh.PublicKey, error) {
	signer, err := loadKey(keyFile, "")
	if err != nil {
		return nil, err
	}
	return signer.PublicKey(), nil
}

// loadKey reads a private key and, if certFile is not empty, its certificate.
func loadKey(keyFile, certFile string) (ssh.Signer, error) {
	text, err := readFile(keyFile)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("the private key %s is protected by a passphrase; add it to an SSH agent and set ssh_agent_auth, or use a key without one", keyFile)
	} else if err != nil {
		return nil, fmt.Errorf("%s is not a private key in PEM or OpenSSH format (%w)", keyFile, err)
	}
	if certFile == "" {
		return signer, nil
	}
	return certify(signer, certFile)
}

func certify(signer ssh.Signer, certFile string) (ssh.Signer, error) {
	text, err := readFile(certFile)
	if err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s is not an OpenSSH certificate (%w)", certFile, err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, fmt.Errorf("%s contains a public key, not a certificate", certFile)
	}
	if !bytes.Equal(cert.Key.Marshal(), signer.PublicKey().Marshal()) {
		return nil, fmt.Errorf("%s certifies a different key from the private key given with it", certFile)
	}
	return ssh.NewCertSigner(cert, signer)
}

// certificateDoubt returns the reason why a certificate probably does not admit a user at a
// time, or "". It is only a guess: a server may map the certificate's principals to other
// users.
func certificateDoubt(key ssh.PublicKey, user string, now time.Time) string {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return ""
	}
	at := func(t uint64) string { return time.Unix(int64(t), 0).UTC().Format(time.RFC1123) } // checked
	seconds := uint64(now.Unix())                                                            // after 1970
	switch {
	case cert.CertType != ssh.UserCert:
		return "is one of a host, not of a user"
	case cert.ValidBefore != ssh.CertTimeInfinity && cert.ValidBefore <= seconds && cert.ValidBefore < 1<<62:
		return "expired on " + at(cert.ValidBefore)
	case cert.ValidAfter > seconds && cert.ValidAfter < 1<<62:
		return "is not valid before " + at(cert.ValidAfter)
	case len(cert.ValidPrincipals) == 0 || slices.Contains(cert.ValidPrincipals, user):
		return ""
	}
	return fmt.Sprintf("is for %s, not for %s", strings.Join(cert.ValidPrincipals, ", "), user)
}

// expired reports whether a certificate is of no use any more.
func expired(key ssh.PublicKey, now time.Time) bool {
	return strings.HasPrefix(certificateDoubt(key, "", now), "expired")
}

func readFile(path string) ([]byte, error) {
	path, err := ExpandHome(path)
	if err != nil {
		return nil, err
	}
	return hostpath.Read(path, hostpath.Limit)
}
