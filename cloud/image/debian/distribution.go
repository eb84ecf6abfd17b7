package debian

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// distribution is a Debian-like distribution.
type distribution struct {
	Name       string // also the full name of the login user
	Suites     []string
	Components []string // components that packages are taken from
	Further    []string // additional components in the system's sources
	OneTree    bool     // security fixes are in the same tree, not in a separate one
	Keyring    string   // name of its keyring package and of the file in it
	Keys       []byte   // the public keys that sign its archive
	Groups     string   // groups of the login user; those that do not exist are ignored
}

// The keys are from the distributions' keyring packages: for Debian the archive and security keys
// of releases 12 and 13 in debian-archive-keyring, for Ubuntu the archive key of 2018 in
// ubuntu-keyring, which signs 20.04 and later.
var (
	//go:embed keys/debian.gpg
	debianKeys []byte
	//go:embed keys/ubuntu.gpg
	ubuntuKeys []byte
)

func distributions() []distribution {
	return []distribution{
		{
			Name: "Debian", Components: []string{"main"}, Keyring: "debian-archive-keyring", Keys: debianKeys,
			Suites: []string{
				"oldoldstable", "oldstable", "stable", "testing", "unstable", "sid",
				"buster", "bullseye", "bookworm", "trixie", "forky", "duke",
			},
			Groups: "adm audio cdrom dialout dip floppy netdev plugdev sudo video",
		},
		{
			Name: "Ubuntu", Components: []string{"main", "universe"}, Further: []string{"restricted", "multiverse"}, OneTree: true,
			Keyring: "ubuntu-archive-keyring", Keys: ubuntuKeys,
			Suites: []string{"focal", "jammy", "noble"},
			Groups: "adm dialout cdrom floppy sudo audio dip video plugdev netdev lxd",
		},
	}
}

// distributionOf returns the distribution of a suite. It returns Debian for an unknown suite,
// because Debian has the most suites.
func distributionOf(suite string) distribution {
	all := distributions()
	for _, d := range all {
		if slices.Contains(d.Suites, suite) {
			return d
		}
	}
	return all[0]
}

// Distribution returns the name of a suite's distribution in lower case.
func Distribution(suite string) string { return strings.ToLower(distributionOf(suite).Name) }

// CheckMirror returns an error if url is not a mirror of a distribution, given by its name
// in lower case.
func CheckMirror(distribution, url string) error {
	var names []string
	for _, d := range distributions() {
		names = append(names, strings.ToLower(d.Name))
	}
	if !slices.Contains(names, distribution) {
		return fmt.Errorf("mirror of %q: only %s are made from a mirror", distribution, strings.Join(names, " and "))
	}
	if !fetchable(url) {
		return fmt.Errorf("mirror %q: it must begin with http:// or https://", url)
	}
	return nil
}

// signs reports whether the signing keys that the host's sources name for an archive may be those
// of the distribution. Archives of third parties may use the same suite names.
func (d distribution) signs(signedBy string) bool {
	return signedBy == "" || strings.Contains(signedBy, d.Keyring) || strings.Contains(signedBy, strings.TrimSuffix(d.Keyring, "-keyring"))
}
