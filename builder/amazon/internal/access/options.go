// Package access opens clients to AWS, or to a cloud that replaces it, and turns error
// responses into errors that say what to do.
package access

import (
	"encoding/json"
	"net/url"
	"time"

	"bake/builder/amazon/internal/names"
	"bake/config/schema"
	"bake/internal/lazyregexp"
)

// Options define the account, the region and the credentials.
type Options struct {
	// Access key ID. Not set: the same sources as the AWS CLI, in this order: environment
	// variables, web identity, profile (including SSO and credential_process), container
	// role, instance role. Prefer those to keys in a template.
	AccessKey string `hcl:"access_key,optional,secret"`

	// Secret access key that belongs to `access_key`. Set both or neither.
	SecretKey string `hcl:"secret_key,optional,secret"`

	// Session token that belongs to `access_key`, if that is temporary.
	Token string `hcl:"token,optional,secret"`

	// AWS region to work in, such as us-east-1. Not set: AWS_REGION, AWS_DEFAULT_REGION, the
	// region of the profile, or the region of the instance that bake runs on.
	Region string `hcl:"region,optional"`

	// Name of the profile in the shared AWS configuration (~/.aws/config and
	// ~/.aws/credentials). Not set: AWS_PROFILE, or `default`.
	Profile string `hcl:"profile,optional"`

	// Credentials file to use instead of the shared AWS configuration.
	SharedCredentialsFile string `hcl:"shared_credentials_file,optional"`

	// IAM role to assume, starting from the credentials that the other options give. Use it to
	// build in another account.
	AssumeRole *AssumeRole `hcl:"assume_role,block"`

	// Current code of the MFA device, for assuming the role of `assume_role` or of a profile
	// that has `mfa_serial`. It is valid for a single session: a build that outlasts the
	// session's credentials fails.
	MFACode string `hcl:"mfa_code,optional"`

	// Get credentials from the AWS secrets engine of HashiCorp Vault when the build starts.
	// The usual variables such as VAULT_ADDR and VAULT_TOKEN configure the connection.
	VaultAWSEngine *VaultAWSEngine `hcl:"vault_aws_engine,block"`

	// If AWS denies a call, decode its message to show why. Needs the permission
	// sts:DecodeAuthorizationMessage.
	DecodeAuthorizationMessages bool `hcl:"decode_authorization_messages,optional"`

	// URL of the EC2 endpoint for the region of the build. Other regions do not use it;
	// AWS_ENDPOINT_URL applies to all.
	CustomEndpointEC2 string `hcl:"custom_endpoint_ec2,optional"`

	// Accept any TLS certificate from AWS endpoints. Dangerous: anyone on the network path
	// can read and change requests. For test endpoints only.
	InsecureSkipTLSVerify bool `hcl:"insecure_skip_tls_verify,optional"`

	// Maximum number of attempts for a request when AWS throttles it or cannot be reached.
	// Not set: 10, or as many as about ten minutes allow while AWS throttles it.
	MaxRetries int `hcl:"max_retries,optional"`

	// Do not check the credentials with sts:GetCallerIdentity at the start. For endpoints
	// without STS.
	SkipCredentialValidation bool `hcl:"skip_credential_validation,optional"`

	// Do not look for credentials in the metadata service of the instance that bake runs on.
	SkipMetadataAPICheck bool `hcl:"skip_metadata_api_check,optional"`

	// How often and how long to poll AWS while waiting.
	Polling *Polling `hcl:"aws_polling,block"`
}

// AssumeRole defines a role to assume.
type AssumeRole struct {
	// ARN of the role, such as `arn:aws:iam::123456789012:role/baker`. Not set: no role is
	// assumed.
	RoleARN string `hcl:"role_arn,optional"`

	// Lifetime of the role's credentials in seconds, 900 to 43200, and no more than the role
	// allows. They are renewed automatically.
	DurationSeconds int `hcl:"duration_seconds,optional"`

	// External ID that the role's trust policy requires.
	ExternalID string `hcl:"external_id,optional"`

	// Session policy in JSON. The session may do only what both the role and this policy
	// allow.
	Policy string `hcl:"policy,optional"`

	// ARNs of managed policies to use as session policies, like `policy`.
	PolicyARNs []string `hcl:"policy_arns,optional"`

	// Name of the session, as it appears in CloudTrail: 2 to 64 characters. Not set: a name
	// that the AWS SDK generates from the time.
	SessionName string `hcl:"session_name,optional"`

	// Session tags, which policies know as `aws:PrincipalTag`. The role's trust policy must
	// allow sts:TagSession.
	Tags map[string]string `hcl:"tags,optional"`

	// Keys of the session tags that are passed on when the session assumes another role.
	TransitiveTagKeys []string `hcl:"transitive_tag_keys,optional"`
}

// VaultAWSEngine defines the credentials to request from Vault.
type VaultAWSEngine struct {
	// Name of the Vault role to get credentials for. If the block sets nothing at all, Vault
	// is not used.
	Name string `hcl:"name,optional"`

	// Path where the AWS secrets engine is mounted.
	EngineName string `hcl:"engine_name,optional"`

	// ARN of the AWS role to assume, if the Vault role allows several.
	RoleARN string `hcl:"role_arn,optional"`

	// Lifetime of the credentials, such as 3600s. It must outlast the build: they are not
	// renewed. Only used together with `role_arn`. Not set: as Vault is configured.
	TTL string `hcl:"ttl,optional"`
}

// SetDefaults implements [schema.Defaulter].
func (v *VaultAWSEngine) SetDefaults() { *v = VaultAWSEngine{EngineName: "aws"} }

// Polling defines how often and how long AWS is polled.
type Polling struct {
	// Longest pause between two polls, in seconds; the first pauses are shorter. Not set: a
	// default that depends on the kind of wait.
	DelaySeconds int `hcl:"delay_seconds,optional"`

	// How many such pauses to wait before giving up. Raise it for large volumes, whose
	// snapshots can take hours. Not set: a default that depends on the kind of wait.
	MaxAttempts int `hcl:"max_attempts,optional"`
}

// Defaults returns the options of a template that sets none.
func Defaults() Options { return Options{} }

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
	if o.vault() != nil && o.AccessKey != "" {
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

// role returns the role to assume, or nil.
func (o *Options) role() *AssumeRole {
	if o.AssumeRole == nil || o.AssumeRole.RoleARN == "" {
		return nil
	}
	return o.AssumeRole
}

// vault returns the options for Vault, or nil.
func (o *Options) vault() *VaultAWSEngine {
	if o.VaultAWSEngine == nil || o.VaultAWSEngine.Name == "" {
		return nil
	}
	return o.VaultAWSEngine
}

// sessionName matches the session names that STS accepts.
var sessionName = lazyregexp.New(`^[A-Za-z0-9_+=,.@-]{2,64}$`)

// Validate implements [schema.Validator].
func (r *AssumeRole) Validate(c *schema.Checker) {
	names.ARN(c, &r.RoleARN, names.Role)
	names.ARNs(c, &r.PolicyARNs, names.Policy)
	if r.RoleARN == "" && c.Set(&r.RoleARN) {
		c.Warnf(&r.RoleARN, "No role", "assume_role has no effect without role_arn.")
	}
	if r.SessionName != "" && !sessionName.Get().MatchString(r.SessionName) {
		c.Errorf(&r.SessionName, "Invalid session name", "A session name has 2 to 64 characters: letters, digits and _+=,.@-.")
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
	if others := c.Set(&v.EngineName) || v.RoleARN != "" || v.TTL != ""; v.Name == "" && c.Known(&v.Name) && others {
		c.Errorf(&v.Name, "No name", "Set name to the role in Vault to get credentials for, or leave the whole block out.")
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

// Environment variables that replace aws_polling.
const (
	envAttempts = "AWS_MAX_ATTEMPTS"
	envDelay    = "AWS_POLL_DELAY_SECONDS"
	envTimeout  = "AWS_TIMEOUT_SECONDS"
)

// patience holds the values of aws_polling, or of the environment instead. Zero means not
// set.
type patience struct {
	delay    time.Duration
	attempts int
	timeout  time.Duration
}
