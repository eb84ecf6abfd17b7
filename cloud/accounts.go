package cloud

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"bake/cloud/durable"
)

// Credentials are an account's access key, and the profile of the credentials
// file that holds it.
type Credentials struct {
	Profile         string
	Account         string // 12 digits
	AccessKeyID     string
	SecretAccessKey string
}

// DefaultRegion is the region of the credentials file's profiles.
const DefaultRegion = "us-east-1"

// accounts are the accounts of a cloud, the default one first.
type accounts []Credentials

// openAccounts reads the accounts in dir; the first time it makes them, with
// secrets of their own. It writes the credentials file anew in any case.
func openAccounts(dir string) (accounts, error) {
	name := filepath.Join(dir, "accounts.json")
	var a accounts
	data, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a = accounts{newAccount("default", "123456789012"), newAccount("other", "987654321098")}
		if data, err = json.MarshalIndent(a, "", "  "); err != nil {
			return nil, err
		}
		if err := durable.Replace(name, append(data, '\n'), 0o600); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(data, &a); err != nil || len(a) == 0 {
			return nil, errors.Join(fmt.Errorf("%s is damaged; delete it to get new access keys", name), err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "aws"), 0o700); err != nil {
		return nil, err
	}
	return a, durable.Replace(filepath.Join(dir, "aws", "credentials"), a.file(), 0o600)
}

func newAccount(profile, account string) Credentials {
	var secret [30]byte
	_, _ = rand.Read(secret[:]) // never fails
	return Credentials{Profile: profile, Account: account, AccessKeyID: "AKIABAKE" + account,
		SecretAccessKey: base64.StdEncoding.EncodeToString(secret[:])}
}

// file is the content of an AWS shared credentials file.
func (a accounts) file() []byte {
	var b strings.Builder
	for _, c := range a {
		fmt.Fprintf(&b, "[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\nregion = %s\n\n", c.Profile, c.AccessKeyID, c.SecretAccessKey, DefaultRegion)
	}
	return []byte(b.String())
}

func (a accounts) find(accessKey string) (Credentials, bool) {
	for _, c := range a {
		if c.AccessKeyID == accessKey {
			return c, true
		}
	}
	return Credentials{}, false
}

// Credentials are those of the cloud's accounts, the default one first.
func (c *Cloud) Credentials() []Credentials { return append([]Credentials(nil), c.accounts...) }

// CredentialsFile is the name of an AWS shared credentials file, for
// AWS_SHARED_CREDENTIALS_FILE, with a profile for each account.
func (c *Cloud) CredentialsFile() string { return filepath.Join(c.dir, "aws", "credentials") }
