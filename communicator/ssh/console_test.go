package ssh_test

import (
	"strings"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"bake/communicator/commtest"
	"bake/communicator/ssh"
)

// authorizedKey returns a line of an authorized_keys file.
func authorizedKey(t testing.TB) string {
	k, err := commtest.NewKeyPair("ed25519", 0, "root@host")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(k.PublicKey)
}

func TestConsoleHostKeys(t *testing.T) {
	const begin, end = "-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----"
	a, b := authorizedKey(t), authorizedKey(t)
	for name, tt := range map[string]struct {
		console []string
		want    []string
	}{
		"nothing":        {[]string{"Linux version 6.1", "login:"}, nil},
		"a block":        {[]string{"boot", begin, a, b, end, "login:"}, []string{a, b}},
		"with CRs":       {[]string{begin + "\r", a + "\r", end + "\r"}, []string{a}},
		"of a logger":    {[]string{"<14>Feb  4 ec2: " + begin, "<14>Feb  4 ec2: " + a, "<14>Feb  4 ec2: " + end}, []string{a}},
		"not yet whole":  {[]string{begin, a}, nil},
		"of two boots":   {[]string{begin, a, end, "reboot", begin, b, end}, []string{b}},
		"the next cut":   {[]string{begin, a, end, "reboot", begin, b}, []string{a}},
		"with a cut key": {[]string{begin, a[:40], b, end}, []string{b}},
		"outside":        {[]string{a, begin, end, b}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, k := range ssh.ConsoleHostKeys(strings.Join(tt.console, "\n")) {
				got = append(got, strings.TrimSpace(string(gossh.MarshalAuthorizedKey(k)))+" root@host")
			}
			if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzConsoleHostKeys(f *testing.F) {
	f.Add("-----BEGIN SSH HOST KEY KEYS-----\n" + authorizedKey(f) + "\n-----END SSH HOST KEY KEYS-----\n")
	f.Add("-----BEGIN SSH HOST KEY KEYS-----\nssh-ecdsa-sk-ssh-\n-----END SSH HOST KEY KEYS-----")
	f.Fuzz(func(t *testing.T, console string) {
		for _, k := range ssh.ConsoleHostKeys(console) {
			if !strings.Contains(console, k.Type()) {
				t.Errorf("%s is not on the console", k.Type())
			}
		}
	})
}
