// Package local is the only connection from bake to the local cloud, the embedded EC2
// in cloud: it serves the cloud in this process, or joins the process that does.
// Machines need Linux; on other systems, opening the cloud fails with [ErrUnsupported].
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"bake/internal/lazyregexp"
)

// DefaultRegion is the region of the local cloud when nothing names one.
const DefaultRegion = "us-east-1"

// MovedBy is added to the port of a machine that cannot be served unchanged on this host.
const MovedBy = 20000

// MaxAccounts is the maximum number of accounts of the local cloud.
const MaxAccounts = 100

// ErrUnsupported is the error on systems that cannot run local machines.
var ErrUnsupported = errors.New("the local cloud runs Linux machines and needs a Linux host. " + remedy)

// remedy explains how to use the local cloud of another host.
const remedy = "On a Linux host or in a Linux virtual machine, run: bake cloud up -listen 127.0.0.1:4566. " +
	"Forward that port to this computer: ssh -N -L 4566:127.0.0.1:4566 HOST. " +
	"Here, copy the credentials file that it names, set AWS_SHARED_CREDENTIALS_FILE to the copy and AWS_ENDPOINT_URL to http://127.0.0.1:4566, and run bake without -local"

// Options define the location of the local cloud, and its behavior if this process
// serves it.
type Options struct {
	Dir    string              // directory of images and machines
	Getenv func(string) string // the environment, for the host's proxies
	Log    *slog.Logger        // for developers

	Launches    bool                         // the cloud is opened to launch machines, so start preparing for them at once
	Accounts    int                          // minimum number of accounts; 0 means two
	AccountIDs  []string                     // IDs of additional accounts, if this process serves the cloud
	Listen      string                       // address to serve at; empty for a free port of 127.0.0.1
	Mirror      string                       // URLs of archives, as in -mirror; empty: those of the host
	Egress      string                       // what machines can reach in addition to public addresses, as in -allow-egress
	EgressAsked bool                         // set by -allow-egress, which is an error if another process serves the cloud
	RecycleBin  time.Duration                // how long deleted items can be restored; 0: not at all
	Delays      string                       // delays: the name of a profile, or JSON; empty: none
	Faults      string                       // a JSON file with rules for faults; empty for none. With it, it is an error if another process serves the cloud
	Rehearsing  func(rules int, seed uint64) // called with the rules in effect

	// Pages returns the handler for requests below /-/ on the cloud's address, or nil for none.
	Pages func(Served) http.Handler

	Progress func(Progress) // called with the progress of preparing bases
	Opening  func(pid int)  // called if another process (0 if unknown) has the cloud open but does not serve it yet
	Waiting  func()         // called if others still use the cloud when it is closed
}

// Served is a cloud that is about to be served, for code that serves web pages about it.
type Served struct {
	Endpoint string                                    // URL
	Keys     []Key                                     // one of each account
	Changes  func(ctx context.Context) <-chan struct{} // signals changes until ctx ends; several changes may be combined
	Calls    func() []Call                             // the last ones that changed something or failed, oldest first
	Looks    http.Header                               // for calls that poll repeatedly: fault rules do not count what they read
}

// Call is a call of the API of the cloud.
type Call struct {
	Time    time.Time `json:"time"`
	Account string    `json:"account"`
	Region  string    `json:"region"`
	Service string    `json:"service"` // as in signatures
	Action  string    `json:"action"`
	Code    string    `json:"code,omitempty"` // of the error, if it failed
	Message string    `json:"message,omitempty"`
}

// Key is an access key of an account.
type Key struct {
	Account
	AccessKey, SecretKey string
}

// Progress is a report on the progress of preparing a base.
type Progress struct {
	Base, Phase string // an empty phase ends the last one
	Note        string // message to the user, if not empty
	Done, Total int64  // bytes
}

// Account is an account of the local cloud, and its profile in the credentials file.
type Account struct {
	Profile string `json:"profile"`
	ID      string `json:"account"`
}

// Cloud is the local cloud, served by this process or by another one.
type Cloud struct {
	Endpoint             string // URL
	AccessKey, SecretKey string
	Dir                  string    // of images and machines
	CredentialsFile      string    // in the form of the AWS CLI, with the same keys
	Accounts             []Account // of the file; none if another process serves it

	ServedBy int        // the process that serves it; 0: this one
	Served   chan error // how serving ended, if this process serves it

	// Explain explains why the cloud has no image with the id or, without one, with these
	// owners and filters, and what to do; it may be empty.
	Explain func(id string, owners []string, filters map[string][]string) string

	// ExpectKey prepares for an RSA key pair that will be created soon, if this process serves
	// the cloud; otherwise it is nil.
	ExpectKey func()

	close func(stop context.Context) error
}

// Close releases the cloud. If this process serves it, Close waits until no other process
// uses it and shuts the machines down; when stop ends, it kills them.
func (c *Cloud) Close(stop context.Context) error { return c.close(stop) }

// DelaysError is the error of [Options] with invalid Delays.
type DelaysError struct{ err error }

func (e *DelaysError) Error() string { return e.err.Error() }
func (e *DelaysError) Unwrap() error { return e.err }

// Finding is a requirement of machines on this host.
type Finding struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Fatal  bool   `json:"fatal"` // no machine can run without it
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// String formats a finding: whether it is met, what it is, and the remedy.
func (f Finding) String() string {
	mark := "ok    "
	switch {
	case f.OK:
	case f.Fatal:
		mark = "FATAL "
	default:
		mark = "note  "
	}
	text := fmt.Sprintf("%s %s: %s", mark, f.Name, f.Detail)
	if !f.OK && f.Remedy != "" {
		text += "\n        remedy: " + f.Remedy
	}
	return text
}

// Rehearsed holds the delays and rules in effect on a cloud, in the form of a rules file,
// and how often each rule was applied.
type Rehearsed struct {
	Delays map[string]string `json:"delays"`
	Faults struct {
		Seed  uint64            `json:"seed"`
		Rules []json.RawMessage `json:"rules"`
	} `json:"faults"`
	Counts []struct {
		Seen    int `json:"seen"`    // calls or launches that matched the rule
		Applied int `json:"applied"` // those to which it was applied
	} `json:"counts"` // of each rule
}

// Import defines the source of an imported image.
type Import struct {
	Source   string // an archive, a disk image, a directory, a reference to an OCI image, or the id of an image of the cloud
	Region   string // region of the image, if the source is an image id
	Endpoint string // of the cloud, which is open; and a key of an account that may launch the image
	Key      Key
	Name     string  // of the image
	Owner    string  // account that publishes it
	User     string  // login user; empty: as in the source
	Arch     string  // architecture, as in GOARCH; empty: that of this host
	Options  Options // settings of the cloud, such as what a machine that installs packages can reach
	As       string  // release whose base it becomes, instead of an image with a name and an owner
	Replace  bool    // replace a previous import or base of the same name
	Now      time.Time
	Progress func(phase string, done, total int64)
}

var imageID = lazyregexp.New(`^ami-[0-9a-f]{8}([0-9a-f]{9})?$`)

// IsImageID reports whether a source of an import is the id of an image.
func IsImageID(source string) bool { return imageID.Get().MatchString(source) }

// Base is the base that the images of a release, or an imported image, boot from.
type Base struct {
	Name      string     `json:"name"`
	Publisher string     `json:"publisher,omitempty"` // of its release
	Owner     string     `json:"owner,omitempty"`
	User      string     `json:"user"`
	Made      bool       `json:"made"`
	Created   *time.Time `json:"created,omitempty"`
	Source    string     `json:"source,omitempty"` // what it was made from
	Size      int64      `json:"size,omitempty"`   // bytes
}

// BaseOptions define the base to make, and its sources.
type BaseOptions struct {
	Release  string
	Mirror   string // as in -mirror, or the URL of the release's archive
	Keyring  string // file with the signing keys of the mirror; empty: those of the release's archive
	Replace  bool   // an existing base
	Progress func(Progress)
}

// Endpoint returns the URL at which a process serves the local cloud in dir. If that
// process was killed, there may be no server.
func Endpoint(dir string) (string, error) {
	name := filepath.Join(dir, "endpoint.json")
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	var served struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal(text, &served); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if served.URL == "" {
		return "", errors.New("the process that has it open does not serve it")
	}
	return served.URL, nil
}
