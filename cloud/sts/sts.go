// Package sts is as much of the Security Token Service as tells callers who
// they are.
package sts

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/sts"

	"bake/cloud/wire"
)

// Service has the actions as methods.
type Service struct{}

// Endpoint returns the handler of the service's requests.
func Endpoint() (*wire.Service, error) {
	model, err := wire.Load("sts")
	if err != nil {
		return nil, err
	}
	return wire.New(model, Service{})
}

// GetCallerIdentity names the account's root user.
func (Service) GetCallerIdentity(ctx context.Context, _ *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	account := wire.CallerFrom(ctx).Account
	arn := "arn:aws:iam::" + account + ":root"
	return &sts.GetCallerIdentityOutput{Account: &account, Arn: &arn, UserId: &account}, nil
}
