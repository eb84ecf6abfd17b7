package access

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"
)

// Within is an account and region that components are restricted to, regardless of their
// options.
type Within struct {
	Account string `json:"account"`
	Region  string `json:"region"`
	Role    string `json:"role,omitempty"`    // ARN of the role to assume with the credentials of the options; empty: none
	Session string `json:"session,omitempty"` // name of the role's session
}

// enter returns a session in that account and region.
func (p *Within) enter(ctx context.Context, s *Session) (*Session, error) {
	if p.Role != "" {
		in, err := s.As(ctx, AssumeRole{RoleARN: p.Role, SessionName: p.Session})
		if err != nil {
			return nil, err
		}
		s = in
	} else if s.Account == "" {
		if err := s.identify(ctx, &Options{}, nil); err != nil {
			return nil, err
		}
	}
	if s.Account != p.Account {
		return nil, fmt.Errorf("account %s is meant, but these credentials are for account %s; use credentials for that account, or a role in it", p.Account, s.Account)
	}
	return s, nil
}

// In returns the cloud for resources in one region, overriding the region that components
// are restricted to.
func (c Cloud) In(region string) Cloud {
	if c.Within != nil {
		there := *c.Within
		there.Region, c.Within = region, &there
	}
	return c
}

// waiting adds middleware that delays each request to the cloud, retries included,
// until it may be sent.
func (c Cloud) waiting(stack *middleware.Stack) error {
	if c.Wait == nil {
		return nil
	}
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("bake:Rate",
		func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (out middleware.FinalizeOutput, metadata middleware.Metadata, err error) {
			if err := c.Wait(ctx, permissionsName(middleware.GetServiceID(ctx)), awsmiddleware.GetRegion(ctx)); err != nil {
				return out, metadata, &aws.RequestCanceledError{Err: err}
			}
			return next.HandleFinalize(ctx, in)
		}), "Retry", middleware.After)
}

// permissionsName returns the name of a service in permissions.
func permissionsName(sdkID string) string {
	if sdkID == "EC2 Instance Connect" {
		return "ec2-instance-connect"
	}
	return strings.ReplaceAll(strings.ToLower(sdkID), " ", "")
}
