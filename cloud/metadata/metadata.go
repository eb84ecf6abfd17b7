// Package metadata is the instance metadata service, IMDSv1 and IMDSv2. Each http.Handler
// serves one instance.
package metadata

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Instance is the information that an instance can read about itself.
type Instance struct {
	Disabled       bool // the whole service is disabled
	Refused        int  // HTTP status of every answer, if not 0
	TokensRequired bool // IMDSv2 only
	HopLimit       int  // of the answer to a token request

	ID, ImageID, Type, Account, ReservationID string
	Architecture                              string // EC2's name
	LaunchIndex                               int
	PendingTime                               time.Time
	Region, Zone, ZoneID                      string
	PrivateName, PrivateAddress               string
	PublicName, PublicAddress                 string // empty if there is no public address
	MAC, InterfaceID                          string
	SubnetID, SubnetCIDR, VPCID, VPCCIDR      string
	KeyName, PublicKey                        string              // empty if there is no key pair
	LentKeys                                  map[string][]string // temporary public keys, by user
	Groups                                    []Group
	Devices                                   []Device
	Spot                                      bool
	Interruption                              *time.Time        // when a Spot Instance will be taken back; nil if it will not
	Role                                      *Role             // nil if there is none
	UserData                                  []byte            // nil if there is none
	Tags                                      map[string]string // nil unless instance metadata tags are enabled
}

// Role is the role of an instance, and the instance profile that contains it.
type Role struct {
	ProfileARN, ProfileID string
	Name                  string
	Credentials           Credentials
}

// Credentials are temporary credentials of a role.
type Credentials struct {
	AccessKeyID, SecretAccessKey, Token string
	Made, Expires                       time.Time
}

// Group is a security group.
type Group struct{ ID, Name string }

// Device is a block device: its name, such as "root", and its path.
type Device struct{ Name, Path string }

// Handler returns a handler for the instance that about returns. It calls about for every
// request, so that changes take effect at once. Tokens are kept in the handler and expire
// by now.
func Handler(now func() time.Time, about func() Instance) http.Handler {
	s := &service{now: now, about: about, tokens: map[string]time.Time{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.get)
	mux.HandleFunc("/latest/api/token", s.token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status := about().Refused; status != 0 {
			fail(w, status)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// service holds the tokens of one instance.
type service struct {
	now   func() time.Time
	about func() Instance

	mu     sync.Mutex
	tokens map[string]time.Time // expiry by token
}

const (
	ttlHeader   = "X-aws-ec2-metadata-token-ttl-seconds"
	tokenHeader = "X-aws-ec2-metadata-token"
	maxTTL      = 6 * 60 * 60 // seconds
)

// token answers PUT /latest/api/token.
func (s *service) token(w http.ResponseWriter, r *http.Request) {
	in := s.about()
	switch ttl, err := strconv.Atoi(r.Header.Get(ttlHeader)); {
	case in.Disabled:
		fail(w, http.StatusForbidden)
	case r.Method != http.MethodPut:
		w.Header().Set("Allow", "OPTIONS, PUT")
		fail(w, http.StatusMethodNotAllowed)
	case r.Header.Get("X-Forwarded-For") != "":
		fail(w, http.StatusForbidden)
	case err != nil || ttl < 1 || ttl > maxTTL:
		fail(w, http.StatusBadRequest)
	default:
		var b [42]byte
		_, _ = rand.Read(b[:]) // never fails
		token := base64.URLEncoding.EncodeToString(b[:])
		s.mu.Lock()
		s.forgetOld()
		s.tokens[token] = s.now().Add(time.Duration(ttl) * time.Second)
		s.mu.Unlock()
		w.Header().Set(ttlHeader, strconv.Itoa(ttl))
		send(w, "text/plain", []byte(token))
	}
}

// forgetOld deletes expired tokens. The caller holds the lock.
func (s *service) forgetOld() {
	for token, end := range s.tokens {
		if !s.now().Before(end) {
			delete(s.tokens, token)
		}
	}
}

// admitted reports whether the request may read, and returns the remaining lifetime of its
// token; 0 without a token.
func (s *service) admitted(r *http.Request, in Instance) (seconds int, ok bool) {
	token := r.Header.Get(tokenHeader)
	if token == "" {
		return 0, !in.TokensRequired
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetOld()
	end, ok := s.tokens[token]
	return int(end.Sub(s.now()) / time.Second), ok
}

func (s *service) get(w http.ResponseWriter, r *http.Request) {
	in := s.about()
	if in.Disabled {
		fail(w, http.StatusForbidden)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed)
		return
	}
	seconds, ok := s.admitted(r, in)
	if !ok {
		fail(w, http.StatusUnauthorized)
		return
	}
	if seconds > 0 {
		w.Header().Set(ttlHeader, strconv.Itoa(seconds))
	}
	path := strings.Trim(r.URL.Path, "/")
	if path == "" {
		send(w, "text/plain", []byte(strings.Join(versions(), "\n")))
		return
	}
	version, rest, _ := strings.Cut(path, "/")
	if !slices.Contains(versions(), version) {
		fail(w, http.StatusNotFound)
		return
	}
	switch {
	case rest == "":
		top := "dynamic\nmeta-data"
		if in.UserData != nil {
			top += "\nuser-data"
		}
		send(w, "text/plain", []byte(top))
	case rest == "user-data" && in.UserData != nil:
		send(w, "application/octet-stream", in.UserData)
	case rest == "user-data":
		fail(w, http.StatusNotFound)
	default:
		value, ok := in.tree().find(rest)
		if !ok {
			fail(w, http.StatusNotFound)
			return
		}
		send(w, "text/plain", []byte(value))
	}
}

// versions returns the dates of EC2's metadata versions. Each is answered like latest.
func versions() []string {
	return []string{"1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04",
		"2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25", "2014-11-05", "2015-10-20", "2016-04-19", "2016-06-30", "2016-09-02",
		"2018-03-28", "2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03", "2021-03-23", "2021-07-15", "2022-09-24",
		"2024-04-11", "latest"}
}

// tree is the metadata: values by path. A path that is a prefix of others is a directory,
// whose content is a listing.
type tree map[string]string

func (in Instance) tree() tree {
	t := tree{}
	meta := func(path, value string) { t["meta-data/"+path] = value }
	optional := func(path, value string) {
		if value != "" {
			meta(path, value)
		}
	}
	meta("ami-id", in.ImageID)
	meta("ami-launch-index", strconv.Itoa(in.LaunchIndex))
	meta("ami-manifest-path", "(unknown)")
	for _, d := range in.Devices {
		meta("block-device-mapping/"+d.Name, d.Path)
	}
	meta("events/maintenance/history", "[]")
	meta("events/maintenance/scheduled", "[]")
	meta("hostname", in.PrivateName)
	if in.Role != nil {
		meta("iam/info", in.Role.info())
		meta("iam/security-credentials/"+in.Role.Name, in.Role.credentials())
	}
	meta("instance-action", "none")
	meta("instance-id", in.ID)
	cycle := "on-demand"
	if in.Spot {
		cycle = "spot"
	}
	if in.Interruption != nil {
		at := in.Interruption.UTC().Format(time.RFC3339)
		meta("spot/instance-action", document(struct {
			Action string `json:"action"`
			Time   string `json:"time"`
		}{"terminate", at}))
		meta("spot/termination-time", at)
	}
	meta("instance-life-cycle", cycle)
	meta("instance-type", in.Type)
	meta("local-hostname", in.PrivateName)
	meta("local-ipv4", in.PrivateAddress)
	meta("mac", in.MAC)
	for user, keys := range in.LentKeys {
		meta("managed-ssh-keys/active-keys/"+user, strings.Join(keys, "\n")+"\n")
	}
	meta("placement/availability-zone", in.Zone)
	meta("placement/availability-zone-id", in.ZoneID)
	meta("placement/region", in.Region)
	meta("profile", "default-hvm")
	optional("public-hostname", in.PublicName)
	optional("public-ipv4", in.PublicAddress)
	if in.PublicKey != "" {
		meta("public-keys", "0="+in.KeyName) // unlike other directories
		meta("public-keys/0/openssh-key", in.PublicKey)
	}
	meta("reservation-id", in.ReservationID)
	names, _ := in.groups()
	meta("security-groups", strings.Join(names, "\n"))
	meta("services/domain", "amazonaws.com")
	meta("services/partition", "aws")
	for key, value := range in.Tags {
		meta("tags/instance/"+key, value)
	}
	t["dynamic/instance-identity/document"] = in.identity()
	for name, value := range in.networkInterface() {
		meta("network/interfaces/macs/"+in.MAC+"/"+name, value)
	}
	return t
}

// networkInterface returns the metadata of the instance's network interface.
func (in Instance) networkInterface() tree {
	names, ids := in.groups()
	t := tree{
		"device-number":          "0",
		"interface-id":           in.InterfaceID,
		"local-hostname":         in.PrivateName,
		"local-ipv4s":            in.PrivateAddress,
		"mac":                    in.MAC,
		"owner-id":               in.Account,
		"security-group-ids":     strings.Join(ids, "\n"),
		"security-groups":        strings.Join(names, "\n"),
		"subnet-id":              in.SubnetID,
		"subnet-ipv4-cidr-block": in.SubnetCIDR,
		"vpc-id":                 in.VPCID,
		"vpc-ipv4-cidr-block":    in.VPCCIDR,
		"vpc-ipv4-cidr-blocks":   in.VPCCIDR,
	}
	if in.PublicAddress != "" {
		t["ipv4-associations/"+in.PublicAddress] = in.PrivateAddress
		t["public-ipv4s"] = in.PublicAddress
	}
	if in.PublicName != "" {
		t["public-hostname"] = in.PublicName
	}
	return t
}

// groups returns the names and the ids of the security groups.
func (in Instance) groups() (names, ids []string) {
	for _, g := range in.Groups {
		names, ids = append(names, g.Name), append(ids, g.ID)
	}
	return names, ids
}

// info returns the document about the instance profile.
func (r *Role) info() string {
	return document(struct {
		Code               string
		LastUpdated        string
		InstanceProfileArn string
		InstanceProfileID  string `json:"InstanceProfileId"`
	}{"Success", r.Credentials.Made.UTC().Format(time.RFC3339), r.ProfileARN, r.ProfileID})
}

func (r *Role) credentials() string {
	c := r.Credentials
	return document(struct {
		Code            string
		LastUpdated     string
		Type            string
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string
		Token           string
		Expiration      string
	}{"Success", c.Made.UTC().Format(time.RFC3339), "AWS-HMAC", c.AccessKeyID, c.SecretAccessKey, c.Token, c.Expires.UTC().Format(time.RFC3339)})
}

// document returns v, plain data, as JSON.
func document(v any) string {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// identity returns the instance identity document.
func (in Instance) identity() string {
	return document(struct {
		AccountID               string   `json:"accountId"`
		Architecture            string   `json:"architecture"`
		AvailabilityZone        string   `json:"availabilityZone"`
		BillingProducts         []string `json:"billingProducts"`
		DevpayProductCodes      []string `json:"devpayProductCodes"`
		MarketplaceProductCodes []string `json:"marketplaceProductCodes"`
		ImageID                 string   `json:"imageId"`
		InstanceID              string   `json:"instanceId"`
		InstanceType            string   `json:"instanceType"`
		KernelID                *string  `json:"kernelId"`
		PendingTime             string   `json:"pendingTime"`
		PrivateIP               string   `json:"privateIp"`
		RamdiskID               *string  `json:"ramdiskId"`
		Region                  string   `json:"region"`
		Version                 string   `json:"version"`
	}{
		AccountID: in.Account, Architecture: in.Architecture, AvailabilityZone: in.Zone, ImageID: in.ImageID, InstanceID: in.ID, InstanceType: in.Type,
		PendingTime: in.PendingTime.UTC().Format(time.RFC3339), PrivateIP: in.PrivateAddress, Region: in.Region, Version: "2017-09-30",
	})
}

// find returns the value at path, or the listing of that directory, in which names of
// directories end in a slash.
func (t tree) find(path string) (string, bool) {
	if value, ok := t[path]; ok {
		return value, true
	}
	seen := map[string]bool{}
	var entries []string
	for key := range t {
		rest, ok := strings.CutPrefix(key, path+"/")
		if !ok {
			continue
		}
		entry, _, deeper := strings.Cut(rest, "/")
		if deeper {
			entry += "/"
		}
		if !seen[entry] {
			seen[entry] = true
			entries = append(entries, entry)
		}
	}
	entries = slices.DeleteFunc(entries, func(e string) bool { return seen[e+"/"] })
	slices.Sort(entries)
	return strings.Join(entries, "\n"), len(entries) > 0
}

func send(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Server", "EC2ws")
	_, _ = w.Write(body) // an error means that the instance has gone
}

// fail answers with EC2's error page for a status.
func fail(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	w.Header().Set("Server", "EC2ws")
	w.WriteHeader(status)
	text := fmt.Sprintf("%d - %s", status, http.StatusText(status))
	_, _ = fmt.Fprintf(w, "<html><head><title>%s</title></head><body><h1>%s</h1></body></html>\n", text, text)
}
