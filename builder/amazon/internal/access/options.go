// Package access opens clients to AWS, or to whatever stands in for it, and
// turns what they answer into errors that say what to do.
package access

import (
	_ "embed"
	"encoding/json"
	"net/url"
	"regexp"
	"sync"
	"time"

	"bake/builder/amazon/internal/names"
	"bake/config/schema"
)

// Source is the Go source that documents [Options], for [schema.Docs].
//
//go:embed options.go
var Source string

// Options say which account and region to work in, and as whom.
type Options struct {
	// Access key id. Without it the usual chain of AWS tools applies: environment,
	// web identity, profile (also SSO and credential_process), container, instance role.
	AccessKey string `hcl:"access_key,optional,secret"`

	// Secret of `access_key`.
	SecretKey string `hcl:"secret_key,optional,secret"`

	// Session token, when `access_key` is a temporary one.
	Token string `hcl:"token,optional,secret"`

	// Region to work in. Without it AWS_REGION, AWS_DEFAULT_REGION and the profile
	// are asked, and then the instance bake runs on, if it lends its role.
	Region string `hcl:"region,optional"`

	// Profile in the shared AWS configuration.
	Profile string `hcl:"profile,optional"`

	// File with profiles that takes the place of the shared AWS configuration.
	SharedCredentialsFile string `hcl:"shared_credentials_file,optional"`

	// IAM role to assume, using the credentials found otherwise.
	AssumeRole *AssumeRole `hcl:"assume_role,block"`

	// Code of a device for multi-factor authentication, with which `assume_role`, or
	// a profile that names a role and `mfa_serial`, is taken on. It holds for one
	// session, which ends when its credentials do.
	MFACode string `hcl:"mfa_code,optional"`

	// Credentials from the secrets engine for AWS of a HashiCorp Vault, which
	// VAULT_ADDR, VAULT_TOKEN and the like describe. They are asked for when the
	// build starts.
	VaultAWSEngine *VaultAWSEngine `hcl:"vault_aws_engine,block"`

	// When AWS refuses a call, ask STS why and say so. It needs the permission
	// sts:DecodeAuthorizationMessage.
	DecodeAuthorizationMessages bool `hcl:"decode_authorization_messages,optional"`

	// Endpoint of EC2 in the region of the build, as a URL. Other regions are not
	// reached through it; AWS_ENDPOINT_URL is for all of them.
	CustomEndpointEC2 string `hcl:"custom_endpoint_ec2,optional"`

	// Accept any TLS certificate.
	InsecureSkipTLSVerify bool `hcl:"insecure_skip_tls_verify,optional"`

	// How often one request is tried when AWS is busy or cannot be reached.
	MaxRetries int `hcl:"max_retries,optional"`

	// Do not ask STS at the start who the credentials belong to.
	SkipCredentialValidation bool `hcl:"skip_credential_validation,optional"`

	// Do not look for credentials in the metadata service of the instance bake runs on.
	SkipMetadataAPICheck bool `hcl:"skip_metadata_api_check,optional"`

	// How often and how long to poll AWS while waiting.
	Polling *Polling `hcl:"aws_polling,block"`
}

// AssumeRole names a role and how it is taken on.
type AssumeRole struct {
	// ARN of the role. Without it no role is assumed.
	RoleARN string `hcl:"role_arn,optional"`

	// Lifetime of one set of its credentials, in seconds. They are renewed as needed.
	DurationSeconds int `hcl:"duration_seconds,optional"`

	// External id that the role demands.
	ExternalID string `hcl:"external_id,optional"`

	// Policy in JSON that narrows the role further.
	Policy string `hcl:"policy,optional"`

	// ARNs of managed policies that narrow the role further.
	PolicyARNs []string `hcl:"policy_arns,optional"`

	// Name of the session in the records of AWS.
	SessionName string `hcl:"session_name,optional"`

	// Session tags.
	Tags map[string]string `hcl:"tags,optional"`

	// Keys of the session tags that are passed on to further roles.
	TransitiveTagKeys []string `hcl:"transitive_tag_keys,optional"`
}

// VaultAWSEngine says which credentials Vault is asked for.
type VaultAWSEngine struct {
	// Name of the role in Vault.
	Name string `hcl:"name"`

	// Path of the secrets engine.
	EngineName string `hcl:"engine_name,optional"`

	// ARN of the role in AWS, for a role in Vault that takes one on.
	RoleARN string `hcl:"role_arn,optional"`

	// How long the credentials of a role are to hold, such as 3600s.
	TTL string `hcl:"ttl,optional"`
}

// SetDefaults implements [schema.Defaulter].
func (v *VaultAWSEngine) SetDefaults() { *v = VaultAWSEngine{EngineName: "aws"} }

// Polling says how patiently AWS is waited for.
type Polling struct {
	// Longest pause between two looks, in seconds. The first looks follow each
	// other faster. Each kind of wait has its own if this is not set.
	DelaySeconds int `hcl:"delay_seconds,optional"`

	// How many such pauses to wait before giving up.
	MaxAttempts int `hcl:"max_attempts,optional"`
}

// Defaults are the options of a template that sets none.
func Defaults() Options { return Options{MaxRetries: 10} }

// Validate reports what is wrong with the options. Structs that embed them call it.
func (o *Options) Validate(c *schema.Checker) {
	if (o.AccessKey == "") != (o.SecretKey == "") && c.Known(&o.AccessKey) && c.Known(&o.SecretKey) {
		ptr := &o.AccessKey
		if o.AccessKey == "" {
			ptr = &o.SecretKey
		}
		c.Errorf(ptr, "Incomplete credentials", "Set both access_key and secret_key, or neither.")
	}
	if o.Token != "" && o.AccessKey == "" && c.Known(&o.AccessKey) {
		c.Warnf(&o.Token, "Session token without an access key", "token belongs to a temporary access_key and secret_key, and has no effect without them.")
	}
	if o.VaultAWSEngine != nil && o.AccessKey != "" {
		c.Errorf(&o.VaultAWSEngine, "Two sources of credentials", "Set either access_key or vault_aws_engine.")
	}
	if o.CustomEndpointEC2 == "" {
		names.Region(c, &o.Region, o.Region)
	}
	if o.MFACode != "" && o.role() == nil && o.Profile == "" && c.Known(&o.Profile) {
		c.Warnf(&o.MFACode, "MFA code without a role", "mfa_code is only used when assuming a role; set assume_role, or a profile that names one.")
	}
	if o.CustomEndpointEC2 != "" {
		if u, err := url.Parse(o.CustomEndpointEC2); err != nil || u.Scheme == "" || u.Host == "" {
			c.Errorf(&o.CustomEndpointEC2, "Not a URL", "%q is not a URL such as https://ec2.example.com.", o.CustomEndpointEC2)
		}
	}
	if o.MaxRetries < 0 {
		c.Errorf(&o.MaxRetries, "Negative number", "max_retries cannot be negative.")
	}
}

// role is the role to assume, or nil.
func (o *Options) role() *AssumeRole {
	if o.AssumeRole == nil || o.AssumeRole.RoleARN == "" {
		return nil
	}
	return o.AssumeRole
}

// sessionName matches the names that STS takes for sessions.
var sessionName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{2,64}$`) })

// Validate implements [schema.Validator].
func (r *AssumeRole) Validate(c *schema.Checker) {
	names.ARN(c, &r.RoleARN, names.Role)
	names.ARNs(c, &r.PolicyARNs, names.Policy)
	if r.RoleARN == "" && c.Set(&r.RoleARN) {
		c.Warnf(&r.RoleARN, "No role", "assume_role has no effect without role_arn.")
	}
	if r.SessionName != "" && !sessionName().MatchString(r.SessionName) {
		c.Errorf(&r.SessionName, "Not a name of a session", "A session name has 2 to 64 letters, digits and characters of _+=,.@-.")
	}
	for key, value := range r.Tags {
		if key == "" || len(key) > 128 || len(value) > 256 {
			c.Errorf(&r.Tags, "Invalid tag", "The key of a session tag has 1 to 128 characters and its value at most 256; %q is too long or too short.", key)
		}
	}
	if d := r.DurationSeconds; d != 0 && (d < 900 || d > 43200) {
		c.Errorf(&r.DurationSeconds, "Invalid duration", "A role session lasts 900 to 43200 seconds, not %d.", d)
	}
	if r.Policy != "" && !json.Valid([]byte(r.Policy)) {
		c.Errorf(&r.Policy, "Not JSON", "policy is an IAM policy in JSON; use jsonencode().")
	}
	for _, k := range r.TransitiveTagKeys {
		if _, ok := r.Tags[k]; !ok && c.Known(&r.Tags) {
			c.Errorf(&r.TransitiveTagKeys, "Unknown tag", "%q is not a key of tags.", k)
		}
	}
}

// Validate implements [schema.Validator].
func (v *VaultAWSEngine) Validate(c *schema.Checker) {
	if v.Name == "" {
		c.Errorf(&v.Name, "No name", "name is the role in Vault, and cannot be empty.")
	}
	names.ARN(c, &v.RoleARN, names.Role)
	if v.TTL != "" && v.RoleARN == "" && c.Known(&v.RoleARN) {
		c.Warnf(&v.TTL, "ttl without role_arn", "ttl has no effect without role_arn.")
	}
}

// Validate implements [schema.Validator].
func (p *Polling) Validate(c *schema.Checker) {
	for _, n := range []*int{&p.DelaySeconds, &p.MaxAttempts} {
		if *n < 0 {
			c.Errorf(n, "Negative number", "%s cannot be negative.", c.Name(n))
		}
	}
}

// env variables that stand in for aws_polling.
const (
	envAttempts = "AWS_MAX_ATTEMPTS"
	envDelay    = "AWS_POLL_DELAY_SECONDS"
	envTimeout  = "AWS_TIMEOUT_SECONDS"
)

// patience is aws_polling, or what the environment says instead. Zero: not said.
type patience struct {
	delay    time.Duration
	attempts int
	timeout  time.Duration
}
