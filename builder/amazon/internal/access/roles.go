package access

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// mfaDevice returns the serial number of the MFA device of the user that the credentials
// of cfg belong to.
func mfaDevice(ctx context.Context, cfg aws.Config) (string, error) {
	var out struct {
		Devices []struct{ SerialNumber string } `xml:"ListMFADevicesResult>MFADevices>member"`
	}
	if err := (&Session{config: cfg}).IAM().Do(ctx, "ListMFADevices", nil, &out); err != nil {
		return "", err
	}
	if len(out.Devices) == 0 {
		return "", errors.New("these credentials have no MFA device")
	}
	return out.Devices[0].SerialNumber, nil
}

const encodedMessage = "Encoded authorization failure message: "

// decodeRefusals adds a middleware that decodes the encoded message of a refused call with
// STS, and adds the text to the error.
func decodeRefusals(client *sts.Client) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("bake:DecodeRefusals",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				out, meta, err := next.HandleInitialize(ctx, in)
				var api smithy.APIError
				if !errors.As(err, &api) {
					return out, meta, err
				}
				_, encoded, ok := strings.Cut(api.ErrorMessage(), encodedMessage)
				if !ok {
					return out, meta, err
				}
				said, derr := Call(ctx, client.DecodeAuthorizationMessage, &sts.DecodeAuthorizationMessageInput{EncodedMessage: &encoded})
				if derr != nil {
					return out, meta, &explained{err, "a message that cannot be decoded (" + derr.Error() + ")"}
				}
				return out, meta, &explained{err, aws.ToString(said.DecodedMessage)}
			}), middleware.Before)
	}
}

// explained is a refused call with the reason that AWS gives.
type explained struct {
	error
	why string
}

func (e *explained) Unwrap() error { return e.error }

// permission explains how to get the permission that the call lacked. It may differ from
// the action of the call: a launch with tags also needs ec2:CreateTags.
func (e *explained) permission(call *Error) string {
	var said struct {
		ExplicitDeny bool `json:"explicitDeny"`
		Context      struct {
			Action   string `json:"action"`
			Resource string `json:"resource"`
		} `json:"context"`
	}
	_ = json.Unmarshal([]byte(e.why), &said) // text that is not JSON names no action
	action := cmp.Or(said.Context.Action, permission(call))
	resource := cmp.Or(said.Context.Resource, "*")
	if said.ExplicitDeny {
		return fmt.Sprintf("A policy denies these credentials %s on %s; change the policy, or use other credentials", action, resource)
	}
	return lacking(action, resource)
}
