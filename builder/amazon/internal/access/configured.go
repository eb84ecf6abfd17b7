package access

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// configuredSTS is the STS endpoint for assuming the roles of the AWS configuration
// itself: those of a profile, or of a job of a CI service with a token. The SDK creates
// its STS clients for them before it reads which endpoint AWS_ENDPOINT_URL or the profile
// sets for all services, and would send these requests to AWS instead.
type configuredSTS struct {
	endpoint *string // for all services, once the configuration has been read; nil: that of the region
}

// loadOptions returns options that make the SDK use c, and that supply the code of an MFA
// device, if there is one.
func (c *configuredSTS) loadOptions(mfaCode string) []func(*config.LoadOptions) error {
	return []func(*config.LoadOptions) error{
		config.WithAssumeRoleCredentialOptions(func(o *stscreds.AssumeRoleOptions) {
			if o.Client != nil { // nil: the options are also evaluated before there is a client
				o.Client = profileRole{o.Client, c}
			}
			if mfaCode != "" {
				o.TokenProvider = func() (string, error) { return mfaCode, nil }
			}
		}),
		config.WithWebIdentityRoleCredentialOptions(func(o *stscreds.WebIdentityRoleOptions) {
			if o.Client != nil {
				o.Client = tokenRole{o.Client, c}
			}
		}),
	}
}

// at directs a call to the endpoint for all services, unless there is one for STS.
func (c *configuredSTS) at(o *sts.Options) {
	if o.BaseEndpoint == nil {
		o.BaseEndpoint = c.endpoint
	}
}

type profileRole struct {
	client stscreds.AssumeRoleAPIClient
	sts    *configuredSTS
}

func (r profileRole) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput, options ...func(*sts.Options)) (*sts.AssumeRoleOutput, error) {
	return r.client.AssumeRole(ctx, in, append(options, r.sts.at)...)
}

type tokenRole struct {
	client stscreds.AssumeRoleWithWebIdentityAPIClient
	sts    *configuredSTS
}

func (r tokenRole) AssumeRoleWithWebIdentity(ctx context.Context, in *sts.AssumeRoleWithWebIdentityInput, options ...func(*sts.Options)) (*sts.AssumeRoleWithWebIdentityOutput, error) {
	return r.client.AssumeRoleWithWebIdentity(ctx, in, append(options, r.sts.at)...)
}
