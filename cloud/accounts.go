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
	"slices"
	"strings"

	"bake/cloud/durable"
)

// Credentials are an account's access key, and the name of its profile in the credentials
// file.
type Credentials struct {
	Profile         string
	Account         string // 12 digits
	AccessKeyID     string
	SecretAccessKey string
}

// defaultRegion is the region of the credentials file's profiles.
const defaultRegion = "us-east-1"

// accounts are the accounts of a cloud, the default one first.
type accounts []Credentials

// MaxAccounts is the largest number of accounts a cloud can have.
const MaxAccounts = 100

// openAccounts reads the accounts stored in dir. On first use it creates two. It then adds
// accounts until there are at least want, and one for each id in ids that does not exist.
// Each account has its own secret. The credentials file is rewritten every time.
func openAccounts(dir string, want int, ids []string) (accounts, error) {
	if want > MaxAccounts {
		return nil, fmt.Errorf("%d accounts were requested; at most %d are possible", want, MaxAccounts)
	}
	name := filepath.Join(dir, "accounts.json")
	var a accounts
	data, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a = accounts{newAccount("default", "123456789012"), newAccount("other", "987654321098")}
		want = max(want, len(a))
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(data, &a); err != nil || len(a) == 0 {
			return nil, errors.Join(fmt.Errorf("%s is damaged; delete it to get new access keys", name), err)
		}
	}
	if n := len(a); data == nil || n < want || len(a.with(ids)) > n {
		a = a.grown(want).with(ids)
		if len(a) > MaxAccounts {
			return nil, fmt.Errorf("%d accounts were requested; at most %d are possible", len(a), MaxAccounts)
		}
		if data, err = json.MarshalIndent(a, "", "  "); err != nil {
			return nil, err
		}
		if err := durable.Replace(name, append(data, '\n'), 0o600); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "aws"), 0o700); err != nil {
		return nil, err
	}
	return a, durable.Replace(filepath.Join(dir, "aws", "credentials"), a.file(), 0o600)
}

// grown returns a with new accounts appended until there are n: account3, account4 and so
// on.
func (a accounts) grown(n int) accounts {
	for i := len(a) + 1; len(a) < n; i++ {
		made := newAccount(fmt.Sprintf("account%d", i), fmt.Sprintf("1%011d", i))
		if !slices.ContainsFunc(a, func(c Credentials) bool { return c.Account == made.Account || c.Profile == made.Profile }) {
			a = append(a, made)
		}
	}
	return a
}

// with returns a with an account appended for each of ids that it lacks. A new account's
// profile is named after its id.
func (a accounts) with(ids []string) accounts {
	for _, id := range ids {
		if !slices.ContainsFunc(a, func(c Credentials) bool { return c.Account == id }) {
			a = append(slices.Clip(a), newAccount(id, id))
		}
	}
	return a
}

func newAccount(profile, account string) Credentials {
	var secret [30]byte
	_, _ = rand.Read(secret[:]) // never fails
	return Credentials{Profile: profile, Account: account, AccessKeyID: "AKIABAKE" + account,
		SecretAccessKey: base64.StdEncoding.EncodeToString(secret[:])}
}

// file returns the content of an AWS shared credentials file.
func (a accounts) file() []byte {
	var b strings.Builder
	for _, c := range a {
		fmt.Fprintf(&b, "[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\nregion = %s\n\n", c.Profile, c.AccessKeyID, c.SecretAccessKey, defaultRegion)
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

// Credentials returns the credentials of the cloud's accounts, the default account first.
func (c *Cloud) Credentials() []Credentials { return append([]Credentials(nil), c.accounts...) }

// CredentialsFile returns the path of an AWS shared credentials file with a profile for
// each account, for AWS_SHARED_CREDENTIALS_FILE.
func (c *Cloud) CredentialsFile() string { return filepath.Join(c.dir, "aws", "credentials") }
