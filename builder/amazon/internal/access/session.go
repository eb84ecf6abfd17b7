package access

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bake/builder/amazon/internal/wait"
	"bake/config/schema"
	"bake/internal/envvar"
)

// Cloud replaces AWS, so that a template works unchanged and without any AWS
// configuration. The zero value is AWS itself. Its fields, if set, override the default
// region, credentials, profile, role and endpoint of the template.
type Cloud struct {
	Name      string // recorded with each resource, so that a later process can find its cloud
	Endpoint  string // URL of every service in every region; empty: this is AWS
	AccessKey string
	SecretKey string
	Region    string // when the template names none

	Header http.Header // added to the header of each request

	// Dial connects to the machines of the cloud. Nil: the network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// DialInstance connects to a port of an instance of a cloud whose own network cannot be
	// reached from here. If nil, Dial can connect to its addresses.
	DialInstance func(ctx context.Context, id string, port int) (net.Conn, error)

	// Explain returns why the cloud has no image with this ID or, without an ID, with these
	// owners and filters, and what to do. The result may be empty. Explain may be nil.
	Explain func(id string, owners []string, filters map[string][]string) string

	// ExpectKey prepares the cloud for an RSA key pair that a build will create soon: making
	// one takes the processor some time. It may be nil.
	ExpectKey func()

	// Users finds what uses images of a region that will be replaced by new ones of the
	// same name or, with must, only uses that prevent the replacement. It ignores queries
	// that are not permitted. Nil means that uses are not queried.
	Users func(ctx context.Context, s *Session, region string, images []types.Image, must bool) []Use

	// Within is the account and region in which all components work. If nil, their options
	// define that.
	Within *Within

	// Wait is called before each request to a service, with the name of the service in
	// permissions. An error of Wait is the error of the request. Wait may be nil.
	Wait func(ctx context.Context, service, region string) error

	// Warn, if not nil, reports problems to the user while bake keeps trying.
	Warn func(ctx context.Context, format string, args ...any)

	// Watchers are shared by all sessions with this cloud, and hold their connections. If
	// nil, each session has its own.
	Watchers *Watchers
}

// StandsIn reports whether this is a cloud that replaces AWS.
func (c Cloud) StandsIn() bool { return c.Endpoint != "" }

// Use is one use of an image.
type Use struct {
	Image string // ID
	By    string // such as "instance i-0abc (running)"
	Must  bool   // the image must stay

	Unknown bool // By describes what could not be determined
}

// Session gives access to one account.
type Session struct {
	Region  string // where the build happens
	Account string // empty if it was not queried
	Cloud   Cloud
	Pace    Pace

	config   aws.Config
	endpoint string // of EC2 in Region only; empty: the usual
	iam      string // endpoint of IAM; empty: the usual
	with     map[string]string
	patience patience
	watchers *Watchers

	persistent bool   // max_retries limits the attempts of a request, for any failure
	identity   string // identity of the calls and their EC2; without secrets
}

// Open finds credentials and a region and, unless the options say otherwise, queries the
// identity of the credentials. Errors that an option causes point to it, if there is a
// template: src may be nil. env is the environment, as "NAME=value", for the variables
// that replace aws_polling.
func Open(ctx context.Context, o *Options, src *schema.Source, cloud Cloud, env []string) (*Session, error) {
	s := &Session{Cloud: cloud, with: map[string]string{}, patience: o.patience(env), watchers: cloud.Watchers, persistent: o.MaxRetries > 0}
	if s.watchers == nil {
		s.watchers = &Watchers{}
	}
	load := s.loadOptions(o)
	vaulted := o.vault() != nil && !cloud.StandsIn()
	if vaulted {
		lent, err := vaultCredentials(ctx, o, src, env)
		if err != nil {
			return nil, err
		}
		load = append(load, config.WithCredentialsProvider(credentials.StaticCredentialsProvider{Value: lent}))
	}
	cfg, err := s.configure(ctx, o, src, load)
	if err != nil {
		return nil, err
	}
	metadata := cfg // with a separate client, which has short timeouts and uses no proxy
	// The client must not be set earlier: the SDK adds the roots of AWS_CA_BUNDLE only to
	// its own client, and refuses any other.
	cfg.HTTPClient = plainBodies{attentive{s.watchers.sender(cfg.HTTPClient), s}}
	if o.DecodeAuthorizationMessages {
		cfg.APIOptions = append(cfg.APIOptions, decodeRefusals(sts.NewFromConfig(cfg)))
	}
	if !cloud.StandsIn() {
		if err := s.onAWS(ctx, o, src, &cfg); err != nil {
			return nil, err
		}
	}
	creds, err := retrieve(ctx, o, src, cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Region == "" && creds.Source == ec2rolecreds.ProviderName {
		if at, err := imds.NewFromConfig(metadata).GetRegion(ctx, nil); err == nil {
			cfg.Region = at.Region
		}
	}
	if cfg.Region == "" {
		return nil, blame(src, &o.Region, "No region", "Set region, AWS_REGION, or a region in the AWS profile.")
	}
	s.config, s.Region = cfg, cfg.Region
	s.Pace = s.pace()
	if vaulted {
		if err := s.settle(ctx); err != nil {
			return nil, err
		}
	}
	if !o.SkipCredentialValidation {
		if err := s.identify(ctx, o, src); err != nil {
			return nil, err
		}
	}
	s.identity = fmt.Sprint(s.With(s.Region), cmp.Or(s.Account, creds.AccessKeyID))
	if cloud.Within != nil {
		return cloud.Within.enter(ctx, s)
	}
	return s, nil
}

// vaultCredentials returns the credentials that Vault issues for the duration of the
// session.
func vaultCredentials(ctx context.Context, o *Options, src *schema.Source, env []string) (lent aws.Credentials, err error) {
	v, err := openVault(env)
	if err == nil {
		lent, err = v.credentials(ctx, o.vault())
	}
	if err != nil {
		return lent, blame(src, &o.VaultAWSEngine, "Vault returned no credentials", "%s.", err)
	}
	return lent, nil
}

// configure reads the AWS configuration, and adds the middleware for all calls of the
// session.
func (s *Session) configure(ctx context.Context, o *Options, src *schema.Source, load []func(*config.LoadOptions) error) (aws.Config, error) {
	var roles configuredSTS
	cfg, err := config.LoadDefaultConfig(ctx, append(load, roles.loadOptions(o.MFACode)...)...)
	roles.endpoint = cfg.BaseEndpoint
	if _, none := errors.AsType[config.SharedConfigProfileNotExistError](err); none && o.Profile != "" {
		return cfg, blame(src, &o.Profile, "No such profile", "The AWS configuration has no profile %q.", o.Profile)
	} else if err != nil {
		return cfg, fmt.Errorf("reading the AWS configuration: %w", err)
	}
	cfg.APIOptions = append(cfg.APIOptions, s.attempts, expectAnswer, logRequests, s.Cloud.waiting)
	for name := range s.Cloud.Header {
		cfg.APIOptions = append(cfg.APIOptions, smithyhttp.SetHeaderValue(name, s.Cloud.Header.Get(name)))
	}
	if o.MaxRetries == 0 {
		cfg.RetryMaxAttempts = 0 // AWS_MAX_ATTEMPTS replaces aws_polling
	}
	cfg.Retryer = func() aws.Retryer { return retryer() }
	return cfg, nil
}

// onAWS adds the options that concern AWS itself to cfg and the session: the role to
// assume, and the endpoint.
func (s *Session) onAWS(ctx context.Context, o *Options, src *schema.Source, cfg *aws.Config) error {
	if role := o.role(); role != nil {
		serial := ""
		if o.MFACode != "" {
			var err error
			if serial, err = mfaDevice(ctx, *cfg); err != nil {
				return blame(src, &o.MFACode, "Unknown MFA device", "%s.", err)
			}
		}
		cfg.Credentials = role.provider(sts.NewFromConfig(*cfg), serial, o.MFACode)
		s.with["role_arn"], s.with["external_id"] = role.RoleARN, role.ExternalID
	}
	s.with["profile"] = o.Profile
	s.with["shared_credentials_file"] = o.SharedCredentialsFile
	if o.InsecureSkipTLSVerify {
		s.with["insecure_skip_tls_verify"] = "true"
	}
	s.endpoint = o.CustomEndpointEC2
	return nil
}

func blame(src *schema.Source, ptr any, summary, format string, args ...any) error {
	if src == nil {
		return fmt.Errorf(summary+": "+format, args...)
	}
	return src.Errorf(ptr, summary, format, args...)
}

func (s *Session) loadOptions(o *Options) []func(*config.LoadOptions) error {
	region := o.Region
	if p := s.Cloud.Within; p != nil {
		region = p.Region
	}
	load := []func(*config.LoadOptions) error{config.WithRegion(region), config.WithLogger(logging.Nop{})}
	if o.MaxRetries > 0 {
		load = append(load, config.WithRetryMaxAttempts(o.MaxRetries))
	}
	if o.InsecureSkipTLSVerify {
		load = append(load, config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // the option asks for it
		})))
	}
	if c := s.Cloud; c.StandsIn() {
		s.with["cloud"] = c.Name
		return append(load,
			config.WithRegion(cmp.Or(region, c.Region)),
			config.WithBaseEndpoint(c.Endpoint),
			config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, "")),
			config.WithSharedConfigFiles([]string{}),
			config.WithSharedCredentialsFiles([]string{}),
			config.WithSharedConfigProfile(""),
			config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	}
	if o.AccessKey != "" {
		load = append(load, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, o.Token)))
	}
	if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	if f := o.SharedCredentialsFile; f != "" {
		load = append(load, config.WithSharedConfigFiles([]string{f}), config.WithSharedCredentialsFiles([]string{f}))
	}
	if o.SkipMetadataAPICheck {
		load = append(load, config.WithEC2IMDSClientEnableState(imds.ClientDisabled))
	}
	return load
}

// provider returns credentials of the assumed role, with the code of an MFA device if there
// is a serial number.
func (r *AssumeRole) provider(client *sts.Client, serial, code string) aws.CredentialsProvider {
	return aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(client, r.RoleARN, func(a *stscreds.AssumeRoleOptions) {
		a.Duration = time.Duration(r.DurationSeconds) * time.Second
		a.RoleSessionName = r.SessionName
		a.TransitiveTagKeys = r.TransitiveTagKeys
		if serial != "" {
			a.SerialNumber = &serial
			a.TokenProvider = func() (string, error) { return code, nil }
		}
		if r.ExternalID != "" {
			a.ExternalID = &r.ExternalID
		}
		if r.Policy != "" {
			a.Policy = &r.Policy
		}
		for _, arn := range r.PolicyARNs {
			a.PolicyARNs = append(a.PolicyARNs, ststypes.PolicyDescriptorType{Arn: &arn})
		}
		for k, v := range r.Tags {
			a.Tags = append(a.Tags, ststypes.Tag{Key: &k, Value: &v})
		}
	}))
}

func retrieve(ctx context.Context, o *Options, src *schema.Source, cfg aws.Config) (aws.Credentials, error) {
	creds, err := cfg.Credentials.Retrieve(ctx)
	switch {
	case err == nil:
		return creds, nil
	case ctx.Err() != nil:
		return creds, context.Cause(ctx)
	case o.role() != nil:
		return creds, blame(src, &o.AssumeRole, "The role cannot be assumed", "%s.", explain(err, 0))
	case o.Profile != "":
		return creds, blame(src, &o.Profile, "The profile returned no credentials", "%s. %s.", err, howToLogIn)
	}
	return creds, fmt.Errorf("there are no AWS credentials. %s (%w)", howToLogIn, err)
}

// identify queries the identity of the credentials with STS. It makes few attempts: this
// is the first call, so a failure is most likely caused by the endpoint.
func (s *Session) identify(ctx context.Context, o *Options, src *schema.Source) error {
	client := sts.NewFromConfig(s.config, func(so *sts.Options) { so.RetryMaxAttempts = min(3, cmp.Or(o.MaxRetries, usualAttempts)) })
	who, err := Call(ctx, client.GetCallerIdentity, &sts.GetCallerIdentityInput{})
	var dns *net.DNSError
	if errors.As(err, &dns) && o.Region != "" && client.Options().BaseEndpoint == nil {
		return blame(src, &o.Region, "The region cannot be reached",
			"The host %s was not found: either there is no region %q, or this machine has no network connection.", dns.Name, o.Region)
	}
	if err != nil {
		return s.blameRegion(ctx, o, src, err)
	}
	s.Account = aws.ToString(who.Account)
	return nil
}

// blameRegion returns an error that points to the region option if the cloud that replaces
// AWS does not have the region.
func (s *Session) blameRegion(ctx context.Context, o *Options, src *schema.Source, err error) error {
	if !s.Cloud.StandsIn() || o.Region == "" || !Is(err, "InvalidParameterValue") || !strings.Contains(err.Error(), "There is no region") {
		return err
	}
	has := ""
	known := ec2.New(s.EC2(s.Region).Options(), func(eo *ec2.Options) { eo.Region = cmp.Or(s.Cloud.Region, "us-east-1") })
	if out, err := Call(ctx, known.DescribeRegions, &ec2.DescribeRegionsInput{}); err == nil {
		var names []string
		for _, r := range out.Regions {
			names = append(names, aws.ToString(r.RegionName))
		}
		slices.Sort(names)
		has = " It has: " + strings.Join(names, ", ") + "."
	}
	return Blame(err, blame(src, &o.Region, "Unknown region", "The local cloud has no region %q.%s", o.Region, has))
}

// EC2 returns the client of a region.
func (s *Session) EC2(region string) *ec2.Client {
	return ec2.NewFromConfig(s.config, func(o *ec2.Options) {
		o.Region = region
		if region == s.Region && s.endpoint != "" {
			o.BaseEndpoint = &s.endpoint
		}
	})
}

// With returns the settings that another process needs to reach resources of this session
// in a region. They contain no secrets.
func (s *Session) With(region string) map[string]string {
	with := maps.Clone(s.with)
	with["account"] = s.Account
	if !s.Cloud.StandsIn() {
		with["endpoint"] = aws.ToString(s.EC2(region).Options().BaseEndpoint)
		with["iam_endpoint"] = s.iamEndpoint()
		with["sts_endpoint"] = aws.ToString(sts.NewFromConfig(s.config).Options().BaseEndpoint)
	}
	maps.DeleteFunc(with, func(_, v string) bool { return v == "" })
	return with
}

// iamEndpoint returns the endpoint at which another process finds IAM; empty means the
// usual one. It ignores configuration that cannot be read: the calls report that.
func (s *Session) iamEndpoint() string {
	at, err := s.IAM().given(context.Background())
	if err != nil {
		return ""
	}
	return at
}

// Reopen opens a session from the result of With, for a resource in region. The account
// must be the one of the resource: in another account the resource would seem to be
// deleted.
func Reopen(ctx context.Context, with map[string]string, region string, cloud Cloud) (*Session, error) {
	o := Defaults()
	o.Region, o.Profile, o.SharedCredentialsFile = region, with["profile"], with["shared_credentials_file"]
	o.CustomEndpointEC2 = with["endpoint"]
	o.InsecureSkipTLSVerify = with["insecure_skip_tls_verify"] == "true"
	o.SkipCredentialValidation = true
	if arn := with["role_arn"]; arn != "" {
		o.AssumeRole = &AssumeRole{RoleARN: arn, ExternalID: with["external_id"]}
	}
	cloud.Within = nil // with defines where the session works
	s, err := Open(ctx, &o, nil, cloud, nil)
	if err == nil && !cloud.StandsIn() {
		s.iam = with["iam_endpoint"]
	}
	if err == nil {
		s, err = s.For(ctx, with)
	}
	if err != nil || with["account"] == "" {
		return s, err
	}
	client := sts.NewFromConfig(s.config, func(so *sts.Options) {
		if at := with["sts_endpoint"]; at != "" && !cloud.StandsIn() {
			so.BaseEndpoint = &at
		}
	})
	who, err := Call(ctx, client.GetCallerIdentity, &sts.GetCallerIdentityInput{})
	if err != nil {
		return nil, err
	}
	if s.Account = aws.ToString(who.Account); s.Account != with["account"] {
		return nil, fmt.Errorf("these credentials are for account %s, but the resource is in account %s; use credentials for that account", s.Account, with["account"])
	}
	return s, nil
}

// targetRole is the entry of [Session.With] with the role that [Session.As] has assumed,
// and targetExternalID its external ID. viaRole and viaExternalID are the role and the
// external ID of the session that assumed it.
const (
	targetRole       = "target_role_arn"
	targetExternalID = "target_external_id"
	viaRole          = "via_role_arn"
	viaExternalID    = "via_external_id"
)

// As opens a session in the same cloud with a role, of this or another account, that the
// session's identity may assume.
func (s *Session) As(ctx context.Context, role AssumeRole) (*Session, error) {
	as := *s
	as.config = s.config.Copy()
	as.config.Credentials = role.provider(sts.NewFromConfig(s.config), "", "")
	if _, err := as.config.Credentials.Retrieve(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, fmt.Errorf("the role %s cannot be assumed: %w", role.RoleARN, explain(err, 0))
	}
	who, err := Call(ctx, sts.NewFromConfig(as.config).GetCallerIdentity, &sts.GetCallerIdentityInput{})
	if err != nil {
		return nil, err
	}
	as.Account = aws.ToString(who.Account)
	as.with = maps.Clone(s.with)
	as.with[viaRole], as.with[viaExternalID] = s.with[targetRole], s.with[targetExternalID]
	as.with[targetRole] = role.RoleARN
	delete(as.with, targetExternalID)
	if role.ExternalID != "" {
		as.with[targetExternalID] = role.ExternalID
	}
	as.watchers = &Watchers{}
	as.identity = fmt.Sprint(as.With(as.Region), as.Account)
	return &as, nil
}

// For returns the session for a resource whose session has been described by [Session.With]
// and was opened by this one: this session, or one with the same role.
func (s *Session) For(ctx context.Context, with map[string]string) (*Session, error) {
	role := with[targetRole]
	if role == "" || role == s.with[targetRole] {
		return s, nil
	}
	if via := with[viaRole]; via != "" && via != s.with[targetRole] {
		between, err := s.As(ctx, AssumeRole{RoleARN: via, ExternalID: with[viaExternalID], SessionName: "bake"})
		if err != nil {
			return nil, err
		}
		s = between
	}
	return s.As(ctx, AssumeRole{RoleARN: role, ExternalID: with[targetExternalID], SessionName: "bake"})
}

// Loopback reports whether the EC2 of the build is on this machine.
func (s *Session) Loopback() bool {
	u, err := url.Parse(aws.ToString(s.EC2(s.Region).Options().BaseEndpoint))
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// Voice returns the function with which a [wait.Wait] reports problems, in the step of ctx.
func (s *Session) Voice(ctx context.Context) func(text string) {
	if s.Cloud.Warn == nil {
		return nil
	}
	return func(text string) { s.Cloud.Warn(ctx, "%s", text) }
}

// ThirdParty reports whether the EC2 of a region may be neither AWS's nor bake's own,
// because the user has set its endpoint. Such an endpoint may ignore unknown parameters.
func (s *Session) ThirdParty(region string) bool {
	return !s.Cloud.StandsIn() && s.EC2(region).Options().BaseEndpoint != nil
}

// Watch returns the intervals and the limit of a wait whose defaults are delay and limit.
func (s *Session) Watch(delay, limit time.Duration) wait.Watch {
	p := s.patience
	w := wait.Watch{Delay: delay, Limit: limit}
	if p.delay > 0 {
		w.Delay = p.delay
	}
	switch {
	case p.attempts > 0:
		w.Limit = time.Duration(p.attempts) * w.Delay
	case p.timeout > 0:
		w.Limit = p.timeout
	}
	return w
}

func (o *Options) patience(env []string) patience {
	var p patience
	if o.Polling != nil {
		p.delay = time.Duration(o.Polling.DelaySeconds) * time.Second
		p.attempts = o.Polling.MaxAttempts
	}
	if p != (patience{}) {
		return p
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(envvar.Get(env, name))
		return max(n, 0)
	}
	return patience{
		delay:    time.Duration(number(envDelay)) * time.Second,
		attempts: number(envAttempts),
		timeout:  time.Duration(number(envTimeout)) * time.Second,
	}
}

// Caller returns the ARN of the identity that makes the calls.
func (s *Session) Caller(ctx context.Context) (string, error) {
	who, err := Call(ctx, sts.NewFromConfig(s.config).GetCallerIdentity, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", err
	}
	return aws.ToString(who.Arn), nil
}
