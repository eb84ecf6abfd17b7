package bakefile

import (
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/robfig/cron/v3"

	"bake/config/lang"
	"bake/config/schema"
	"bake/internal/lazyregexp"
)

// Fleet are the arguments of a fleet block: images to bake in several accounts and
// regions. The label is the name of the fleet.
type Fleet struct {
	// Images to bake, such as `[image.base, image.web]`. The name of an image with `for_each`
	// includes all its images; `image.web["debian"]` is one of them. Images that these refer
	// to must be in the list too.
	Images hcl.Expression `hcl:"images"`

	// Accounts and regions. Each image is baked in each region of each account; each such
	// combination is a cell of the fleet.
	Matrix *Matrix `hcl:"matrix,block"`

	// ARN of the role to assume for a cell, such as
	// `"arn:aws:iam::${each.account}:role/bake-build"`. `each.account` and `each.region` are
	// those of the cell. Not set: no role is assumed, and the credentials must be of the one
	// account of the matrix.
	Role hcl.Expression `hcl:"role,optional"`

	// When the fleet runs. Requires an `engine` block, and takes effect with `bake fleet
	// apply`.
	Schedule *Schedule `hcl:"schedule,block"`

	// Limits on concurrent work.
	Limits *FleetLimits `hcl:"limits,block"`

	// Notifications about cells. The label is the kind: `webhook`. Repeatable.
	Notify []Notify `hcl:"notify,block"`
}

// Matrix are the arguments of a matrix block.
type Matrix struct {
	// Account IDs.
	Account []string `hcl:"account"`

	// Regions, such as `eu-west-1`.
	Region []string `hcl:"region"`
}

// Schedule are the arguments of a schedule block.
type Schedule struct {
	// When the fleet runs, in cron syntax: minute, hour, day of the month, month and day
	// of the week. `30 2 * * *` is every night at 2:30.
	Cron string `hcl:"cron"`

	// Time zone of `cron`, such as `Europe/Berlin`.
	Timezone string `hcl:"timezone,optional"`

	// Maximum random delay of the start of a run.
	Jitter time.Duration `hcl:"jitter,optional"`

	// What to do when a run is due while the previous one is still in progress: `skip` it,
	// start it afterwards (`buffer_one` keeps at most one waiting run, `buffer_all` any
	// number), cancel the previous one (`cancel_other`), or run both (`allow_all`).
	Overlap Overlap `hcl:"overlap,optional"`

	// How late a run may still start if it could not start on time because the service was
	// down.
	CatchUp time.Duration `hcl:"catch_up,optional"`

	// Pause the schedule after this many consecutive failed runs. Not set: never.
	PauseAfterFailures int `hcl:"pause_after_failures,optional"`
}

// Overlap is the policy for a run that is due while another is in progress.
type Overlap string

// Choices implements [schema.Choices].
func (Overlap) Choices() []string {
	return []string{"skip", "buffer_one", "buffer_all", "cancel_other", "allow_all"}
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (o *Overlap) UnmarshalText(b []byte) error { return schema.ParseChoice(o, b, o.Choices()) }

// FleetLimits are the arguments of a limits block.
type FleetLimits struct {
	// Maximum number of cells in progress at a time.
	Parallel int `hcl:"parallel,optional"`

	// Maximum number of cells in progress at a time in each account. Not set: only
	// `parallel` limits them.
	PerAccount int `hcl:"per_account,optional"`

	// Maximum number of calls per second to a service in each account and region, such as
	// `{ ec2 = 5 }`. Services are named as in IAM actions. Not set: only the limits of AWS,
	// to which bake adapts.
	APIRate map[string]float64 `hcl:"api_rate,optional"`
}

// Notify are the arguments of a notify block.
type Notify struct {
	Kind string `hcl:"kind,label"`

	// Events to report: a cell `failed`; it `recovered`, that is, succeeded after a failure
	// the last time; or its image waits for `approval` for a channel.
	On []string `hcl:"on"`

	// URL to which a POST request with JSON is sent. It must use HTTPS, unless the server
	// is on this machine.
	URL string `hcl:"url"`

	// HTTP headers to send, for example for authorization. Their values are never shown.
	Headers map[string]string `hcl:"headers,optional,secret"`

	// How long the server may take to answer. A failed request is retried twice.
	Timeout time.Duration `hcl:"timeout,optional"`
}

// Engine are the arguments of an engine block: the service that runs fleets, instead of the bake
// process. The label is its kind: `temporal`.
type Engine struct {
	// Host and port of Temporal's frontend service, such as `temporal.internal:7233`.
	Address string `hcl:"address"`

	// Temporal namespace. It must exist. Not set: `default`.
	Namespace string `hcl:"namespace,optional"`

	// TLS settings. Without the block, TLS is not used; with an empty block, server
	// certificates are verified against this machine's trusted roots.
	TLS *EngineTLS `hcl:"tls,block"`
}

// EngineTLS are the arguments of a tls block.
type EngineTLS struct {
	// PEM file with the CA certificates to verify servers with. Not set: this machine's
	// trusted roots.
	CAFile string `hcl:"ca_file,optional"`

	// PEM file with the client certificate. Requires `key_file`.
	CertFile string `hcl:"cert_file,optional"`

	// PEM file with the private key of `cert_file`.
	KeyFile string `hcl:"key_file,optional"`

	// Name that the server's certificate must be valid for. Not set: the host in
	// `address`.
	ServerName string `hcl:"server_name,optional"`
}

// SetDefaults implements [schema.Defaulter].
func (s *Schedule) SetDefaults() { s.Timezone, s.Overlap, s.CatchUp = "UTC", "skip", time.Hour }

// SetDefaults implements [schema.Defaulter].
func (l *FleetLimits) SetDefaults() { l.Parallel = 10 }

// SetDefaults implements [schema.Defaulter].
func (n *Notify) SetDefaults() { n.Timeout = 10 * time.Second }

var regionName = lazyregexp.New(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)

// Validate implements [schema.Validator].
func (m *Matrix) Validate(c *schema.Checker) {
	for _, list := range []*[]string{&m.Account, &m.Region} {
		if len(*list) == 0 {
			c.Errorf(list, "Empty matrix", "%s is empty, so that the fleet would have no cells.", c.Name(list))
		}
		for i, one := range *list {
			if slices.Contains((*list)[:i], one) {
				c.Errorf(list, "Listed twice", "%q is there twice.", one)
			}
		}
	}
	for _, id := range m.Account {
		if len(id) != 12 || strings.Trim(id, "0123456789") != "" {
			c.Errorf(&m.Account, "Invalid account ID", "%q is not an AWS account ID, which has 12 digits. Write it in quotes.", id)
		}
	}
	for _, region := range m.Region {
		if !regionName.Get().MatchString(region) {
			c.Errorf(&m.Region, "Invalid region", "%q is not the name of a region, such as eu-west-1.", region)
		}
	}
}

// Validate implements [schema.Validator].
func (s *Schedule) Validate(c *schema.Checker) {
	zone, err := time.LoadLocation(s.Timezone)
	if _, none := time.LoadLocation("Europe/Berlin"); err != nil && none == nil { // otherwise this machine has no time zone database
		c.Errorf(&s.Timezone, "Unknown time zone", "There is no time zone %q. Their names are like Europe/Berlin, and UTC.", s.Timezone)
	}
	if s.Timezone == "Local" {
		c.Errorf(&s.Timezone, "Unknown time zone", "Which zone is the local one differs from machine to machine. Name the zone, as in Europe/Berlin.")
	}
	if err != nil {
		zone = time.UTC
	}
	due, err := cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow).Parse(s.Cron)
	switch {
	case strings.Contains(s.Cron, "TZ="):
		c.Errorf(&s.Cron, "Invalid schedule", "The time zone has an argument of its own: timezone.")
	case err != nil:
		c.Errorf(&s.Cron, "Invalid schedule", "%q is not a schedule: %s. It has five fields: minute, hour, day of the month, month, and day of the week, which is 0 (Sunday) to 6; \"30 2 * * *\" is every night at 2:30.", s.Cron, err)
	case due.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, zone)).IsZero():
		c.Errorf(&s.Cron, "Invalid schedule", "%q never comes: no month has such a day.", s.Cron)
	}
	if s.Jitter < 0 {
		c.Errorf(&s.Jitter, "Invalid duration", "jitter cannot be negative.")
	}
	if s.CatchUp < 10*time.Second {
		c.Errorf(&s.CatchUp, "Invalid duration", "catch_up must be 10s or more: a run is never in time to the second.")
	}
	if s.PauseAfterFailures < 0 {
		c.Errorf(&s.PauseAfterFailures, "Invalid number", "pause_after_failures cannot be negative.")
	}
}

// ratedServices are the services that are called to make an image.
var ratedServices = []string{"autoscaling", "ec2", "ec2-instance-connect", "iam", "kms", "s3", "secretsmanager", "ssm", "sts"}

// Validate implements [schema.Validator].
func (l *FleetLimits) Validate(c *schema.Checker) {
	for _, n := range []*int{&l.Parallel, &l.PerAccount} {
		if *n < 0 {
			c.Errorf(n, "Invalid number", "%s must be 1 or more.", c.Name(n))
		}
	}
	for _, service := range slices.Sorted(maps.Keys(l.APIRate)) {
		if !slices.Contains(ratedServices, service) {
			c.Errorf(&l.APIRate, "Unknown service", "No calls go to a service %q.%s There are: %s.", service, lang.DidYouMean(service, ratedServices), strings.Join(ratedServices, ", "))
		}
		if l.APIRate[service] <= 0 {
			c.Errorf(&l.APIRate, "Invalid rate", "The rate of %s must be more than 0: it is how many calls there are a second.", service)
		}
	}
}

// mostTelling is the maximum timeout of an attempt to send a notification.
const mostTelling = time.Minute

// occasions are the events that a notify block can report.
var occasions = []string{"failed", "recovered", "approval"}

// Validate implements [schema.Validator].
func (n *Notify) Validate(c *schema.Checker) {
	if n.Kind != "webhook" {
		c.Errorf(&n.Kind, "Unknown kind", "Unknown kind of notification %q. The only kind is webhook.", n.Kind)
	}
	if len(n.On) == 0 {
		c.Errorf(&n.On, "Nothing to tell", "on is empty. It can have: %s.", strings.Join(occasions, ", "))
	}
	for _, on := range n.On {
		if !slices.Contains(occasions, on) {
			c.Errorf(&n.On, "Unknown occasion", "Unknown event %q.%s The events are: %s.", on, lang.DidYouMean(on, occasions), strings.Join(occasions, ", "))
		}
	}
	u, err := url.Parse(n.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		c.Errorf(&n.URL, "Invalid URL", "url must be the URL of a web server, such as \"https://ci.example.com/hook\".")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		c.Errorf(&n.URL, "Not encrypted", "Notifications to other machines must use https.")
	}
	if n.Timeout <= 0 || n.Timeout > mostTelling { // the end of a run may have to wait for three attempts
		c.Errorf(&n.Timeout, "Invalid duration", "timeout must be a duration such as \"10s\", and %s at most.", mostTelling)
	}
	for _, name := range slices.Sorted(maps.Keys(n.Headers)) {
		if name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || strings.ContainsAny(n.Headers[name], "\r\n\x00") {
			c.Errorf(&n.Headers, "Invalid header", "%q cannot be sent: the name of a header has letters, digits and dashes, and its value is one line.", name)
		}
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Validate implements [schema.Validator].
func (e *Engine) Validate(c *schema.Checker) {
	host, port, err := net.SplitHostPort(e.Address)
	switch {
	case strings.Contains(e.Address, "://"):
		c.Errorf(&e.Address, "Invalid address", "%q is a URL. An address is a host and a port, such as temporal.internal:7233.", e.Address)
	case err != nil || host == "" || port == "" || strings.Trim(port, "0123456789") != "":
		c.Errorf(&e.Address, "Invalid address", "%q is not a host and a port, such as temporal.internal:7233.", e.Address)
	}
	if t := e.TLS; t != nil && (t.CertFile == "") != (t.KeyFile == "") && c.Known(&t.CertFile) && c.Known(&t.KeyFile) {
		c.Errorf(&e.TLS, "Incomplete certificate", "Set both cert_file and key_file, or neither.")
	}
}
