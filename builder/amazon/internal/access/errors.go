package access

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bake/step"
)

// Error is a call that AWS did not carry out, or whose outcome is unknown.
type Error struct {
	Service, Op string // "EC2", "RunInstances"
	Code        string // as AWS gives it; empty if it gave none
	Message     string
	hint        string // what the user can do about it; may be empty

	// Refused means that AWS refused the only request that was sent, so that it changed
	// nothing.
	Refused bool

	err error

	status int // of HTTP; 0 if there was no response
}

func (e *Error) Error() string {
	text := e.Op + ": " + e.Message
	if e.Code != "" {
		text = e.Op + ": " + e.Code + ": " + e.Message
	}
	text = strings.TrimSuffix(text, ".")
	if e.hint != "" {
		text += ". " + e.hint
	}
	return text
}

func (e *Error) Unwrap() error { return e.err }

// Is reports whether target is [step.ErrRefused], because AWS is the cause.
func (e *Error) Is(target error) bool { return target == step.ErrRefused }

// Code returns the code that AWS gave an error, or "".
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Is reports whether AWS gave err one of the codes.
func Is(err error, codes ...string) bool {
	code := Code(err)
	return code != "" && slices.Contains(codes, code)
}

// NotFound reports whether err says that the requested resource does not exist.
func NotFound(err error) bool {
	code := Code(err)
	return strings.HasSuffix(code, ".NotFound") || Is(err, "InvalidAMIID.Unavailable", "InvalidLaunchTemplateName.NotFoundException", "NoSuchEntity")
}

// NotImplemented reports whether err looks like the answer of an endpoint other than AWS's
// that does not support the request. AWS always returns an error code.
func NotImplemented(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Code == "" && e.status == http.StatusInternalServerError || e.status == http.StatusNotImplemented ||
		Is(err, "NotImplemented", "UnknownParameter")
}

// Refused reports whether err means that nothing was changed.
func Refused(err error) bool {
	var e *Error
	var u unsent
	return errors.As(err, &e) && e.Refused || errors.As(err, &u)
}

// unsent is the reason why a call was not sent, such as the end of its context.
type unsent struct{ error }

func (u unsent) Unwrap() error { return u.error }

// Call makes one API call: out, err := Call(ctx, client.RunInstances, in).
// Its errors are *[Error], or the cause of ctx once that has ended.
func Call[I, O, Opt any](ctx context.Context, op func(context.Context, *I, ...func(*Opt)) (*O, error), in *I) (*O, error) {
	a := &attempts{start: time.Now()}
	out, err := op(context.WithValue(ctx, attemptsKey{}, a), in)
	if err == nil {
		return out, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, explain(err, int(a.requests.Load()))
}

// Finish is [Call] for a call that creates a resource. When ctx ends during the call, the
// call gets a little more time, so that the resource is known and can be deleted without a
// search.
func Finish[I, O, Opt any](ctx context.Context, op func(context.Context, *I, ...func(*Opt)) (*O, error), in *I) (*O, error) {
	return finish(ctx, finishGrace, op, in)
}

// Through is [Finish] for a change that another call reverts when ctx has ended. The change
// may take the time of several attempts, so that it does not take effect after the call
// that reverts it.
func Through[I, O, Opt any](ctx context.Context, op func(context.Context, *I, ...func(*Opt)) (*O, error), in *I) (*O, error) {
	return finish(ctx, throughGrace, op, in)
}

func finish[I, O, Opt any](ctx context.Context, grace time.Duration, op func(context.Context, *I, ...func(*Opt)) (*O, error), in *I) (*O, error) {
	if cause := context.Cause(ctx); cause != nil {
		return nil, unsent{cause}
	}
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(grace, func() { cancel(context.Cause(ctx)) })
	})()
	return Call(longer, op, in)
}

const (
	finishGrace  = 5 * time.Second  // longer than the usual duration of a call that creates a resource
	throughGrace = 30 * time.Second // includes failed attempts
)

// noCode is the SDK's code for a response without an error code.
const noCode = "UnknownError"

func explain(err error, requests int) error {
	e := &Error{Op: "the call", err: err}
	var op *smithy.OperationError
	if errors.As(err, &op) {
		e.Service, e.Op = op.ServiceID, op.OperationName
	}
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) {
		e.status = resp.HTTPStatusCode()
	}
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() != noCode {
		e.Code, e.Message = api.ErrorCode(), api.ErrorMessage()
		e.Refused = requests == 1 && e.status/100 == 4
		e.Message, e.hint = hint(e)
		var said *explained
		if errors.As(err, &said) {
			e.hint = said.permission(e) + ". AWS says: " + said.why
		}
		return e
	}
	e.Message, e.hint = unreachable(err)
	return e
}

// hint shortens verbose messages of AWS and adds advice.
func hint(e *Error) (message, hint string) {
	switch e.Code {
	case "UnauthorizedOperation", "AccessDenied", "AccessDeniedException":
		message, _, encoded := strings.Cut(e.Message, " Encoded authorization failure message:")
		hint := lacking(permission(e), "*")
		if encoded {
			hint += " (aws sts decode-authorization-message shows more)"
		}
		return message, hint
	case "AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException", "InvalidAccessKeyId", "MissingAuthenticationToken", "IncompleteSignature":
		return e.Message, "AWS does not accept these credentials: check access_key and secret_key, the profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that this machine's clock is right"
	case "ExpiredToken", "ExpiredTokenException", "RequestExpired":
		return e.Message, "The credentials have expired; renew them (aws sso login, or wherever they came from)"
	case "OptInRequired":
		return e.Message, "The account has not enabled this region or service"
	case "RequestLimitExceeded", "Throttling", "ThrottlingException":
		return e.Message, "AWS is throttling requests; raise max_retries to keep trying longer"
	case "InsufficientInstanceCapacity", "InsufficientHostCapacity":
		return e.Message, "Try another availability_zone or instance_type, or try again later"
	case "VcpuLimitExceeded", "InstanceLimitExceeded", "VolumeLimitExceeded", "ResourceLimitExceeded", "SnapshotLimitExceeded":
		return e.Message, "Ask AWS to raise the quota, or remove what is no longer needed"
	}
	return e.Message, ""
}

// permission returns the permission for the call, which in S3 may differ from the action.
func permission(call *Error) string {
	op := call.Op
	switch op {
	case "HeadBucket":
		op = "ListBucket"
	case "ListMultipartUploads":
		op = "ListBucketMultipartUploads"
	case "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload":
		op = "PutObject"
	}
	return strings.ToLower(call.Service) + ":" + op
}

// lacking explains how to get the permission to do action with resource.
func lacking(action, resource string) string {
	return fmt.Sprintf(`The credentials lack the permission %s; add {"Effect": "Allow", "Action": %q, "Resource": %q} to their policy, or use other credentials`, action, action, resource)
}

func unreachable(err error) (message, hint string) {
	if large, ok := errors.AsType[tooLarge](err); ok {
		return large.Error(), ""
	}
	const check = "Check this machine's network, proxy and the endpoint (custom_endpoint_ec2, AWS_ENDPOINT_URL)"
	if late, ok := errors.AsType[*unansweredError](err); ok {
		return late.Error(), check
	}
	service := "AWS"
	var op *smithy.OperationError
	if errors.As(err, &op) {
		service = op.ServiceID
	}
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) && resp.HTTPStatusCode()/100 == 2 {
		return "the answer was cut off or garbled", "Check this machine's network, and that the endpoint serves " + service
	}
	if errors.As(err, &resp) && resp.HTTPStatusCode() > 0 {
		return fmt.Sprintf("the endpoint answered with HTTP status %d and a body that is not an AWS response", resp.HTTPStatusCode()),
			"Check that the endpoint serves " + service
	}
	if noCredentials(err) {
		return "there are no credentials", howToLogIn
	}
	endpoint := "AWS"
	var u *url.Error
	if errors.As(err, &u) {
		if at, perr := url.Parse(u.URL); perr == nil {
			endpoint = at.Scheme + "://" + at.Host
		}
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return fmt.Sprintf("there is no host %s", dns.Name), "Check the name of the region, the endpoint, and this machine's network"
	}
	var netErr *net.OpError
	if errors.As(err, &netErr) {
		return fmt.Sprintf("%s cannot be reached: %s", endpoint, netErr.Err), check
	}
	if errors.As(err, &u) {
		return fmt.Sprintf("%s cannot be used: %s", endpoint, u.Err), check
	}
	if op != nil {
		return op.Err.Error(), ""
	}
	return err.Error(), ""
}

const howToLogIn = "Set access_key and secret_key, or profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws sso login; bake build -local needs none"

// noCredentials reports whether err comes from the search for credentials.
func noCredentials(err error) bool {
	var canceled *aws.RequestCanceledError
	if errors.As(err, &canceled) {
		return false
	}
	text := err.Error()
	return strings.Contains(text, "failed to refresh cached credentials") || strings.Contains(text, "get credentials") || strings.Contains(text, "static credentials are empty")
}

// Blame replaces an error by a diagnostic that points to the option that caused it. Code,
// NotFound and Refused still see the error.
func Blame(err, diagnostic error) error { return &blamed{diagnostic, err} }

type blamed struct{ diagnostic, cause error }

func (b *blamed) Error() string   { return b.diagnostic.Error() }
func (b *blamed) Unwrap() []error { return []error{b.diagnostic, b.cause} }
