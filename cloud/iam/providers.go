package iam

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/iam"
	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

// provider is a token issuer that an account's roles may trust. URL has no scheme, which
// is always https.
type provider struct {
	iam.GetOpenIDConnectProviderOutput
	ARN string
}

var thumbprint = lazyregexp.New(`^[0-9a-fA-F]{40}$`)

// CreateOpenIDConnectProvider registers an issuer. The issuer is not contacted until one
// of its tokens is used.
func (s *Service) CreateOpenIDConnectProvider(ctx context.Context, in *iam.CreateOpenIDConnectProviderInput) (*iam.CreateOpenIDConnectProviderOutput, error) {
	u, err := url.Parse(aws.ToString(in.Url))
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(*in.Url) > 255:
		return nil, wire.Errorf("ValidationError", "Invalid Open ID Connect Provider URL")
	case len(in.ClientIDList) > 100:
		return nil, wire.Errorf("LimitExceeded", "Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: 100")
	case len(in.ThumbprintList) > 5:
		return nil, wire.Errorf("InvalidInput", "Thumbprint list must contain fewer than 5 entries.")
	case slices.ContainsFunc(in.ThumbprintList, func(t string) bool { return !thumbprint.Get().MatchString(t) }):
		return nil, wire.Errorf("ValidationError", "Thumbprints must be 40 hexadecimal digits: the SHA-1 of a certificate.")
	case slices.ContainsFunc(in.ClientIDList, func(id string) bool { return id == "" || len(id) > 255 }):
		return nil, wire.Errorf("ValidationError", "Client ids must have 1 to 255 characters.")
	}
	owner, name := wire.CallerFrom(ctx).Account, u.Host+strings.TrimSuffix(u.Path, "/")
	p := &provider{ARN: "arn:aws:iam::" + owner + ":oidc-provider/" + name}
	p.Url, p.CreateDate, p.ClientIDList = &name, aws.Time(s.now().UTC()), in.ClientIDList
	for _, t := range in.ThumbprintList {
		p.ThumbprintList = append(p.ThumbprintList, strings.ToLower(t))
	}
	if p.Tags, err = merged(nil, in.Tags); err != nil {
		return nil, err
	}
	err = s.change(owner, func(a *account) error {
		if a.Providers[name] != nil {
			return exists("Provider with url https://%s already exists.", name)
		}
		if a.Providers == nil {
			a.Providers = map[string]*provider{}
		}
		a.Providers[name] = p
		return nil
	})
	return &iam.CreateOpenIDConnectProviderOutput{OpenIDConnectProviderArn: &p.ARN, Tags: p.Tags}, err
}

// named returns the account's provider with an ARN.
func (a *account) named(arn *string) (*provider, error) {
	for _, p := range a.Providers {
		if p.ARN == aws.ToString(arn) {
			return p, nil
		}
	}
	return nil, &wire.Error{Code: "NoSuchEntity", Message: "OpenIDConnect Provider not found for arn " + aws.ToString(arn), Status: http.StatusNotFound}
}

// GetOpenIDConnectProvider describes an issuer.
func (s *Service) GetOpenIDConnectProvider(ctx context.Context, in *iam.GetOpenIDConnectProviderInput) (*iam.GetOpenIDConnectProviderOutput, error) {
	out := &iam.GetOpenIDConnectProviderOutput{}
	return out, s.read(wire.CallerFrom(ctx).Account, func(a *account) error {
		p, err := a.named(in.OpenIDConnectProviderArn)
		if err == nil {
			*out = p.GetOpenIDConnectProviderOutput
			out.ClientIDList, out.ThumbprintList = append([]string{}, out.ClientIDList...), append([]string{}, out.ThumbprintList...)
		}
		return err
	})
}

// ListOpenIDConnectProviders lists the account's issuers.
func (s *Service) ListOpenIDConnectProviders(ctx context.Context, _ *iam.ListOpenIDConnectProvidersInput) (*iam.ListOpenIDConnectProvidersOutput, error) {
	out := &iam.ListOpenIDConnectProvidersOutput{OpenIDConnectProviderList: []iam.OpenIDConnectProviderListEntry{}}
	return out, s.read(wire.CallerFrom(ctx).Account, func(a *account) error {
		for _, name := range slices.Sorted(maps.Keys(a.Providers)) {
			out.OpenIDConnectProviderList = append(out.OpenIDConnectProviderList, iam.OpenIDConnectProviderListEntry{Arn: &a.Providers[name].ARN})
		}
		return nil
	})
}

// DeleteOpenIDConnectProvider deletes an issuer. Roles that trust it stay.
func (s *Service) DeleteOpenIDConnectProvider(ctx context.Context, in *iam.DeleteOpenIDConnectProviderInput) (*iam.DeleteOpenIDConnectProviderOutput, error) {
	return &iam.DeleteOpenIDConnectProviderOutput{}, s.change(wire.CallerFrom(ctx).Account, func(a *account) error {
		p, err := a.named(in.OpenIDConnectProviderArn)
		if err == nil {
			delete(a.Providers, *p.Url)
		}
		return err
	})
}

// Provider is a token issuer.
type Provider struct {
	ARN, URL    string // URL has no scheme
	ClientIDs   []string
	Thumbprints []string // in lower case
}

// Provider returns an account's provider by its URL without the scheme.
func (s *Service) Provider(owner, name string) (found Provider, ok bool) {
	_ = s.read(owner, func(a *account) error { // returns the error of the function, which is nil
		var p *provider
		if p, ok = a.Providers[name]; ok {
			found = Provider{p.ARN, *p.Url, p.ClientIDList, p.ThumbprintList}
		}
		return nil
	})
	return found, ok
}
