package debian

import (
	"bytes"
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/google/go-cmp/cmp"

	"bake/cloud/image/debian/debiantest"
)

var today = time.Date(2025, 3, 20, 12, 0, 0, 0, time.UTC)

func TestVerifyRelease(t *testing.T) {
	key, stranger := debiantest.NewKey(t), debiantest.NewKey(t)
	signed := debiantest.Sign(t, key, today, "Suite: bookworm\n- dashed\n")
	replace := func(old, new string) []byte { return bytes.Replace(signed, []byte(old), []byte(new), 1) }
	for name, test := range map[string]struct {
		message []byte
		keys    openpgp.EntityList
		now     time.Time
		err     string
	}{
		"good":                    {signed, openpgp.EntityList{stranger, key}, today, ""},
		"another key":             {signed, openpgp.EntityList{stranger}, today, "does not verify"},
		"no keys":                 {signed, nil, today, "does not verify"},
		"text changed":            {replace("bookworm", "bookwarm"), openpgp.EntityList{key}, today, "does not verify"},
		"text before":             {append([]byte("Suite: sid\n\n"), signed...), openpgp.EntityList{key}, today, "outside its signature"},
		"text after":              {append(bytes.Clone(signed), "Suite: sid\n"...), openpgp.EntityList{key}, today, "outside its signature"},
		"no signature":            {[]byte("Suite: bookworm\n"), openpgp.EntityList{key}, today, "not a signed message"},
		"a login page":            {[]byte("<html>"), openpgp.EntityList{key}, today, "login page"},
		"cut in the signature":    {signed[:len(signed)-60], openpgp.EntityList{key}, today, "not a signed message"},
		"signed in the future":    {signed, openpgp.EntityList{key}, today.AddDate(0, 0, -2), "does not verify"},
		"signature of other text": {replace("- dashed", "- dashing"), openpgp.EntityList{key}, today, "does not verify"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := verifyRelease(test.message, test.keys, test.now)
			if test.err == "" {
				if err != nil || text != "Suite: bookworm\n- dashed\n" && text != "Suite: bookworm\n- dashed" {
					t.Errorf("got %q, %v", text, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
}

func TestParseRelease(t *testing.T) {
	const hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	const date = "Date: Sat, 15 Mar 2025 09:12:41 UTC\n"
	for name, test := range map[string]struct{ text, err string }{
		"good":            {date + "SHA256:\n " + hash + " 12 main/binary-amd64/Packages.xz\n", ""},
		"no date":         {"SHA256:\n " + hash + " 12 x\n", "Date: \"\" is not a date"},
		"bad expiry":      {date + "Valid-Until: soon\nSHA256:\n " + hash + " 12 x\n", "Valid-Until: \"soon\""},
		"only md5":        {date + "MD5Sum:\n d41d8cd98f00b204e9800998ecf8427e 0 x\n", "no files with a SHA256"},
		"short hash":      {date + "SHA256:\n abc 12 x\n", "is not an entry"},
		"size of letters": {date + "SHA256:\n " + hash + " many x\n", "is not an entry"},
		"size below zero": {date + "SHA256:\n " + hash + " -1 x\n", "is not an entry"},
		"no hex digit":    {date + "SHA256:\n " + hash[:63] + "\xff 12 x\n", "is not an entry"},
		"two paragraphs":  {date + "SHA256:\n " + hash + " 12 x\n\n" + date, "more than one paragraph"},
		"nothing":         {"", "no files"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := parseRelease(test.text)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if e := r.Files["main/binary-amd64/Packages.xz"]; e.Size != 12 || e.SHA256 != hash {
				t.Errorf("got %+v", e)
			}
			if want := time.Date(2025, 3, 15, 9, 12, 41, 0, time.UTC); !r.Date.Equal(want) {
				t.Errorf("date %v, want %v", r.Date, want)
			}
		})
	}
}

func TestCheckDates(t *testing.T) {
	for name, test := range map[string]struct {
		date, until time.Time
		err         string
	}{
		"never expires": {today.AddDate(-5, 0, 0), time.Time{}, ""},
		"valid":         {today.AddDate(0, 0, -3), today.AddDate(0, 0, 4), ""},
		"expired":       {today.AddDate(0, 0, -8), today.Add(-time.Second), "expired at 2025-03-20T11:59:59Z"},
		"clocks differ": {today.Add(time.Hour), time.Time{}, ""},
		"future":        {today.AddDate(0, 0, 2), time.Time{}, "in the future"},
	} {
		t.Run(name, func(t *testing.T) {
			err := (&release{Date: test.date, ValidUntil: test.until}).checkDates(today)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
		})
	}
}

func TestLoadKeyring(t *testing.T) {
	key := debiantest.NewKey(t)
	var binary, armored bytes.Buffer
	if err := key.Serialize(&binary); err != nil {
		t.Fatal(err)
	}
	w, err := armor.Encode(&armored, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := func(b []byte) fstest.MapFS {
		return fstest.MapFS{"usr/share/keyrings/debian-archive-keyring.pgp": {Data: b}}
	}
	for name, test := range map[string]struct {
		host  fstest.MapFS
		file  string
		err   string
		given []byte
	}{
		"the host's":         {file(binary.Bytes()), "", "", nil},
		"the host's armored": {file(armored.Bytes()), "", "", nil},
		"given":              {nil, "k.gpg", "", binary.Bytes()},
		"given is missing":   {file(binary.Bytes()), "k.gpg", "k.gpg", nil},
		"empty":              {file(nil), "", "holds no key", nil},
		"nonsense":           {file([]byte("x")), "", "keyring /usr/share/keyrings/debian-archive-keyring.pgp", nil},
	} {
		t.Run(name, func(t *testing.T) {
			read := func(name string) ([]byte, error) {
				if test.given == nil {
					return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
				}
				return test.given, nil
			}
			keys, err := distributionOf("bookworm").loadKeyring(test.host, read, test.file)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				return
			}
			known := 4 // number of built-in keys
			if test.given != nil {
				known = 0
			}
			if err != nil || len(keys) != known+1 || keys[known].PrimaryKey.KeyId != key.PrimaryKey.KeyId {
				t.Errorf("got %v, %v", keys, err)
			}
		})
	}
}

// TestKeys checks that the built-in keys are exactly those of the archives.
func TestKeys(t *testing.T) {
	want := map[string][]string{
		"Debian": {
			"b8b80b5b623eab6ad8775c45b7c5d7d6350947f8", "05ab90340c0c5e797f44a8c8254cf3b5aec0a8f0",
			"04b54c3cdca79751b16bc6b5225629df75b188bd", "5e04a1e3223a19a20706e20f9904613d4cce68c6",
		},
		"Ubuntu": {"f6ecb3762474eda9d21b7022871920d1991bc93c"},
	}
	for _, d := range distributions() {
		keys, err := d.loadKeyring(fstest.MapFS{}, os.ReadFile, "")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range keys {
			got = append(got, hex.EncodeToString(k.PrimaryKey.Fingerprint))
			if k.PrivateKey != nil {
				t.Errorf("%s: a private key", d.Name)
			}
		}
		if diff := cmp.Diff(want[d.Name], got); diff != "" {
			t.Errorf("keys of %s (-want +got):\n%s", d.Name, diff)
		}
	}
}

func FuzzParseRelease(f *testing.F) {
	f.Add("Date: Sat, 15 Mar 2025 09:12:41 UTC\nSHA256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 12 x\n")
	f.Add("Date: x\nSHA256: a b c")
	f.Add("Date: Sat, 15 Mar 2025 09:12:41 UTC\nSHA256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85\xff 12 x\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRelease(text)
		if err != nil {
			return
		}
		for name, e := range r.Files {
			if name == "" || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(e.SHA256) || e.Size < 0 {
				t.Errorf("%q: file %q is %+v", text, name, e)
			}
		}
	})
}
