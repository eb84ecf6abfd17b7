package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"
)

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

func readFile(path string) ([]byte, error) {
	path, err := ExpandHome(path)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}
