package ssh

import (
	"bufio"
	"strings"

	"golang.org/x/crypto/ssh"
)

// ConsoleHostKeys returns the SSH host keys that cloud-init printed on a console: those
// of the last whole block, since a machine may print new ones on a later boot.
func ConsoleHostKeys(console string) (keys []ssh.PublicKey) {
	var block []ssh.PublicKey
	inside := false
	lines := bufio.NewScanner(strings.NewReader(console))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.Contains(line, "-----BEGIN SSH HOST KEY KEYS-----"):
			inside, block = true, nil
		case strings.Contains(line, "-----END SSH HOST KEY KEYS-----"):
			if inside && len(block) > 0 {
				keys = block
			}
			inside = false
		case inside:
			if key := consoleKey(line); key != nil {
				block = append(block, key)
			}
		}
	}
	return keys
}

// consoleKey parses a line with a public key, which a logger may have put its own
// words in front of.
func consoleKey(line string) ssh.PublicKey {
	for _, kind := range []string{"ssh-", "ecdsa-", "sk-"} {
		if i := strings.Index(line, kind); i >= 0 {
			if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line[i:])); err == nil {
				return key
			}
		}
	}
	return nil
}
