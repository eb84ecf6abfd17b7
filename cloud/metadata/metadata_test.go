package metadata

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// imds is a service whose instance and time tests may change.
type imds struct {
	in      Instance
	now     time.Time
	handler http.Handler
}

func newIMDS() *imds {
	s := &imds{now: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC), in: Instance{
		ID: "i-1", ImageID: "ami-1", Type: "t3.micro", Account: "123456789012", Region: "eu-west-1", Zone: "eu-west-1a", ZoneID: "euw1-az1",
		PrivateName: "ip-172-31-0-5.eu-west-1.compute.internal", PrivateAddress: "172.31.0.5", PublicName: "127.20.0.1", PublicAddress: "127.20.0.1",
		MAC: "02:00:00:00:00:01", KeyName: "key", PublicKey: "ssh-ed25519 AAAA key", Groups: []Group{{"sg-1", "web"}, {"sg-2", "ssh"}},
		Devices: []Device{{"ami", "/dev/xvda"}, {"root", "/dev/xvda"}}, UserData: []byte("#!/bin/sh\n"), LentKeys: map[string][]string{"admin": {"ssh-rsa A", "ssh-rsa B"}}, Tags: map[string]string{"Name": "web"},
	}}
	s.handler = Handler(func() time.Time { return s.now }, func() Instance { return s.in })
	return s
}

func (s *imds) do(method, path string, header ...string) (int, string, http.Header) {
	r := httptest.NewRequest(method, "http://169.254.169.254"+path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w.Code, w.Body.String(), w.Header()
}

func TestPaths(t *testing.T) {
	s := newIMDS()
	for path, want := range map[string]string{
		"/latest":                                                                 "dynamic\nmeta-data\nuser-data",
		"/2021-03-23/meta-data/instance-id":                                       "i-1",
		"/latest/meta-data/ami-id":                                                "ami-1",
		"/latest/meta-data/hostname":                                              "ip-172-31-0-5.eu-west-1.compute.internal",
		"/latest/meta-data/public-ipv4":                                           "127.20.0.1",
		"/latest/meta-data/placement/":                                            "availability-zone\navailability-zone-id\nregion",
		"/latest/meta-data/public-keys/":                                          "0=key",
		"/latest/meta-data/public-keys/0/":                                        "openssh-key",
		"/latest/meta-data/public-keys/0/openssh-key":                             "ssh-ed25519 AAAA key",
		"/latest/meta-data/managed-ssh-keys/active-keys/admin":                    "ssh-rsa A\nssh-rsa B\n",
		"/latest/meta-data/security-groups":                                       "web\nssh",
		"/latest/meta-data/block-device-mapping/":                                 "ami\nroot",
		"/latest/meta-data/network/interfaces/macs/":                              "02:00:00:00:00:01/",
		"/latest/meta-data/tags/instance/Name":                                    "web",
		"/latest/user-data":                                                       "#!/bin/sh\n",
		"/latest/dynamic/instance-identity":                                       "document",
		"/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/local-ipv4s": "172.31.0.5",
	} {
		if status, body, _ := s.do("GET", path); status != http.StatusOK || body != want {
			t.Errorf("%s: %d %q, want %q", path, status, body, want)
		}
	}
	for _, path := range []string{"/1999-01-01/meta-data/", "/latest/meta-data/iam/info", "/latest/meta-data/instance", "/latest/meta-data/spot/"} {
		if status, _, _ := s.do("GET", path); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
	// Every entry of every directory is readable.
	var walk func(dir string)
	walk = func(dir string) {
		_, body, _ := s.do("GET", dir)
		for entry := range strings.SplitSeq(body, "\n") {
			if entry, _, ok := strings.Cut(entry, "="); ok {
				walk(dir + entry + "/")
			} else if strings.HasSuffix(entry, "/") {
				walk(dir + entry)
			} else if status, _, _ := s.do("GET", dir+entry); status != http.StatusOK {
				t.Errorf("%s%s: %d", dir, entry, status)
			}
		}
	}
	walk("/latest/meta-data/")

	_, body, _ := s.do("GET", "/latest/dynamic/instance-identity/document")
	var document map[string]any
	if err := json.Unmarshal([]byte(body), &document); err != nil || document["region"] != "eu-west-1" || document["accountId"] != "123456789012" {
		t.Errorf("identity document %s, %v", body, err)
	}
	s.in.UserData, s.in.Tags = nil, nil
	for _, path := range []string{"/latest/user-data", "/latest/meta-data/tags/instance"} {
		if status, _, _ := s.do("GET", path); status != http.StatusNotFound {
			t.Errorf("%s without any: %d", path, status)
		}
	}
}

func TestTokens(t *testing.T) {
	s := newIMDS()
	s.in.TokensRequired = true
	const path = "/latest/meta-data/instance-id"
	if status, _, _ := s.do("GET", path); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}
	for _, ttl := range []string{"", "0", "21601", "soon"} {
		if status, _, _ := s.do("PUT", "/latest/api/token", ttlHeader, ttl); status != http.StatusBadRequest {
			t.Errorf("a token for %q seconds: %d", ttl, status)
		}
	}
	if status, _, _ := s.do("GET", "/latest/api/token", ttlHeader, "60"); status != http.StatusMethodNotAllowed {
		t.Errorf("GET of a token: %d", status)
	}
	if status, _, _ := s.do("PUT", "/latest/api/token", ttlHeader, "60", "X-Forwarded-For", "10.0.0.1"); status != http.StatusForbidden {
		t.Errorf("a token through a proxy: %d", status)
	}
	status, token, header := s.do("PUT", "/latest/api/token", ttlHeader, "60")
	if status != http.StatusOK || header.Get(ttlHeader) != "60" {
		t.Fatalf("token: %d, %v", status, header)
	}
	s.now = s.now.Add(59 * time.Second)
	if status, body, header := s.do("GET", path, tokenHeader, token); status != http.StatusOK || body != "i-1" || header.Get(ttlHeader) != "1" {
		t.Errorf("with a token: %d %q %v", status, body, header)
	}
	s.now = s.now.Add(time.Second)
	if status, _, _ := s.do("GET", path, tokenHeader, token); status != http.StatusUnauthorized {
		t.Errorf("with an old token: %d", status)
	}
	s.in.TokensRequired = false
	if status, _, _ := s.do("GET", path, tokenHeader, "wrong"); status != http.StatusUnauthorized {
		t.Errorf("with a wrong token: %d", status)
	}
	s.in.Disabled = true
	for _, method := range []string{"GET", "PUT"} {
		if status, _, _ := s.do(method, "/latest/api/token", ttlHeader, "60"); status != http.StatusForbidden {
			t.Errorf("%s while disabled: %d", method, status)
		}
	}
}
