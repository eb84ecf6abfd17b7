package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bake/internal/lazyregexp"
)

// service makes calls of a service without the SDK's client for it, each of which would
// add 150 to 900 kB to the program. The calls use the same middleware as the SDK's
// clients, so that they are retried, logged and explained in the same way.
type service struct {
	session *Session
	region  string
	name    string // in signatures and permissions
	sdkID   string // in the variables for endpoints
	base    string // the endpoint, if the user has set one
	global  bool   // one host serves all regions of a partition
	govFIPS bool   // the FIPS hosts in GovCloud have a different service name
	both    bool   // the usual hosts are dual stack
	s3      bool   // it is S3
	limit   *int64 // maximum size of a response in bytes; nil: maxAnswer
}

// protocol encodes a call and decodes its response.
type protocol interface {
	// encode encodes a call into a request and returns the body, which is sent from its
	// start. The request is a POST to the endpoint unless encode changes that.
	encode(req *smithyhttp.Request, action string, params any) (body io.ReadSeeker, err error)
	// decode decodes the response to a call, whose body is text.
	decode(action string, resp *smithyhttp.Response, text []byte) error
}

// maxAnswer is the maximum size of a response in bytes. The largest pages have a few
// megabytes.
const maxAnswer = 64 << 20

// tooLarge is the error of a response that exceeds the limit in bytes.
type tooLarge int64

func (t tooLarge) Error() string {
	return fmt.Sprintf("the answer is larger than the limit of %d bytes", int64(t))
}

// operation returns a function that makes a call, for use with [Call].
func operation[I any](s *service, action string, p protocol) func(context.Context, *I, ...func(*struct{})) (*struct{}, error) {
	return func(ctx context.Context, params *I, _ ...func(*struct{})) (*struct{}, error) {
		return &struct{}{}, s.call(ctx, action, p, params)
	}
}

func (s *service) call(ctx context.Context, action string, p protocol, params any) error {
	ctx = middleware.WithOperationName(middleware.WithServiceID(middleware.ClearStackValues(ctx), s.sdkID), action)
	stack, err := s.stack(action, p)
	if err != nil {
		return err
	}
	handler := middleware.DecorateHandler(smithyhttp.NewClientHandlerWithOptions(s.session.config.HTTPClient), stack)
	if _, _, err := handler.Handle(ctx, params); err != nil {
		return &smithy.OperationError{ServiceID: s.name, OperationName: action, Err: err}
	}
	return nil
}

// stack returns the middleware for a call. It has the steps of the SDK's clients, with the
// names that the session's own middleware refers to.
func (s *service) stack(action string, p protocol) (*middleware.Stack, error) {
	limit := int64(maxAnswer)
	if s.limit != nil {
		limit = *s.limit
	}
	stack := middleware.NewStack(action, smithyhttp.NewStackRequest)
	retryer := s.session.config.Retryer()
	if most := s.session.config.RetryMaxAttempts; most > 0 {
		retryer = retry.AddWithMaxAttempts(retryer, most)
	}
	errs := []error{
		stack.Initialize.Add(&awsmiddleware.RegisterServiceMetadata{ServiceID: s.sdkID, SigningName: s.name, Region: s.region, OperationName: action}, middleware.Before),
		stack.Serialize.Add(middleware.SerializeMiddlewareFunc("OperationSerializer", s.serializer(p)), middleware.After),
		awsmiddleware.AddClientRequestIDMiddleware(stack),
		awsmiddleware.AddRequestUserAgentMiddleware(stack),
		stack.Finalize.Add(retry.NewAttemptMiddleware(retryer, smithyhttp.RequestCloner), middleware.After),
		stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("Signing", s.signer()), middleware.After),
		awsmiddleware.AddRawResponseToMetadata(stack),
		stack.Deserialize.Add(deserializer(action, p, limit), middleware.After),
		awsmiddleware.AddRecordResponseTiming(stack),
		awsmiddleware.AddRequestIDRetrieverMiddleware(stack),
	}
	for _, add := range s.session.config.APIOptions {
		errs = append(errs, add(stack))
	}
	return stack, errors.Join(errs...)
}

// serializer returns a middleware that encodes the request of a call.
func (s *service) serializer(p protocol) func(context.Context, middleware.SerializeInput, middleware.SerializeHandler) (middleware.SerializeOutput, middleware.Metadata, error) {
	return func(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (out middleware.SerializeOutput, metadata middleware.Metadata, err error) {
		req := in.Request.(*smithyhttp.Request)
		endpoint, region, err := s.endpoint(ctx)
		if err != nil {
			return out, metadata, err
		}
		ctx = middleware.WithStackValue(ctx, signingRegion{}, region)
		if req.URL, err = url.Parse(endpoint); err != nil {
			return out, metadata, &smithy.SerializationError{Err: err}
		}
		if req.URL.Path == "" {
			req.URL.Path = "/"
		}
		req.Method = http.MethodPost
		body, err := p.encode(req, middleware.GetOperationName(ctx), in.Parameters)
		if err == nil {
			req, err = req.SetStream(body)
		}
		if err != nil {
			return out, metadata, &smithy.SerializationError{Err: err}
		}
		in.Request = req
		return next.HandleSerialize(ctx, in)
	}
}

// signer returns a middleware that signs each request of a call. It uses the clock of the
// service once the service has reported that this machine's clock is wrong.
func (s *service) signer() func(context.Context, middleware.FinalizeInput, middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
	var skew time.Duration
	return func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (out middleware.FinalizeOutput, metadata middleware.Metadata, err error) {
		req := in.Request.(*smithyhttp.Request)
		digest := req.Header.Get(bodyDigest)
		if digest == "" {
			hash := sha256.New()
			if _, err := io.Copy(hash, req.GetStream()); err != nil {
				return out, metadata, err
			}
			if err := req.RewindStream(); err != nil {
				return out, metadata, err
			}
			digest = hex.EncodeToString(hash.Sum(nil))
		}
		creds, err := s.session.config.Credentials.Retrieve(ctx)
		if err != nil {
			return out, metadata, &v4.SigningError{Err: fmt.Errorf("get credentials: %w", err)}
		}
		region, _ := middleware.GetStackValue(ctx, signingRegion{}).(string)
		err = v4.NewSigner().SignHTTP(ctx, creds, req.Request, digest, s.name, region, time.Now().Add(skew), func(o *v4.SignerOptions) {
			o.DisableURIPathEscaping = s.s3
		})
		if err != nil {
			return out, metadata, &v4.SigningError{Err: err}
		}
		out, metadata, err = next.HandleFinalize(ctx, in)
		skew, _ = awsmiddleware.GetAttemptSkew(metadata)
		return out, metadata, err
	}
}

// deserializer returns a middleware that decodes the responses to a call. A successful
// response may have at most limit bytes.
func deserializer(action string, p protocol, limit int64) middleware.DeserializeMiddleware {
	return middleware.DeserializeMiddlewareFunc("OperationDeserializer",
		func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
			out, metadata, err := next.HandleDeserialize(ctx, in)
			resp, ok := out.RawResponse.(*smithyhttp.Response)
			if err != nil || !ok {
				return out, metadata, err
			}
			defer resp.Body.Close()
			limit := limit
			if resp.StatusCode/100 != 2 {
				limit = maxAnswer
			}
			text, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
			switch {
			case err != nil:
				err = &smithy.DeserializationError{Err: err}
			case int64(len(text)) > limit:
				err = tooLarge(limit)
			default:
				err = p.decode(action, resp, text)
			}
			if err != nil {
				err = &smithyhttp.ResponseError{Response: resp, Err: err}
			}
			return out, metadata, err
		})
}

// bodyDigest is the header with the SHA-256 of a body in hexadecimal digits. The protocol
// of S3 requires it; it is computed once for all attempts.
const bodyDigest = "X-Amz-Content-Sha256"

// signingRegion is the context key of the region that a call is signed for.
type signingRegion struct{}

// hostLabel matches a region, and a bucket name that can be a host name covered by the
// certificate of S3.
var hostLabel = lazyregexp.New(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)

// endpoint returns the address to which the SDK's client of the service would send its
// calls, and the region for which it would sign them.
func (s *service) endpoint(ctx context.Context) (address, region string, err error) {
	if own, err := s.given(ctx); own != "" || err != nil {
		return own, s.region, err
	}
	if !hostLabel.Get().MatchString(s.region) { // a service may have named it
		return "", "", fmt.Errorf("%q is not the name of a region", s.region)
	}
	of := s.session.EC2(s.region).Options().EndpointOptions
	dual, fips := of.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled, of.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled
	resolve := func(dual, fips bool) (*url.URL, error) {
		at, err := ec2.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, ec2.EndpointParameters{Region: &s.region, UseDualStack: &dual, UseFIPS: &fips})
		return &at.URI, err
	}
	usual := &url.URL{} // the usual endpoint of EC2, which shows the partition
	if s.global || s.s3 || s.both && dual {
		if usual, err = resolve(false, false); err != nil {
			return "", "", err
		}
	}
	switch {
	case s.global:
		host, home := globalHost(s.region, usual.Host, dual, fips)
		return "https://" + s.name + host, home, nil
	case s.s3:
		name := s.name
		if fips {
			name += "-fips"
		}
		if dual {
			name += ".dualstack"
		}
		return "https://" + name + strings.TrimPrefix(usual.Host, "ec2"), s.region, nil
	case s.both && dual:
		dual = !strings.HasSuffix(usual.Host, ".amazonaws.com") && (fips || !strings.HasSuffix(usual.Host, ".amazonaws.com.cn"))
	}
	// The endpoints differ in little except the name of the service.
	found, err := resolve(dual, fips)
	if err != nil {
		return "", "", err
	}
	name := s.name
	if s.govFIPS && fips && !dual && strings.HasPrefix(s.region, "us-gov-") {
		name += "-fips"
	}
	found.Host = name + strings.TrimPrefix(found.Host, "ec2")
	return found.String(), s.region, nil
}

// given returns the endpoint in the options or the configuration, or "".
func (s *service) given(ctx context.Context) (string, error) {
	switch {
	case s.session.Cloud.StandsIn():
		return s.session.Cloud.Endpoint, nil
	case s.base != "":
		return s.base, nil
	case s.sdkID == ec2.ServiceID:
		if at := s.session.EC2(s.region).Options().BaseEndpoint; at != nil {
			return *at, nil
		}
	case s.sdkID == "IAM" && s.session.iam != "":
		return s.session.iam, nil
	}
	return s.configured(ctx)
}

// configured returns the endpoint in the environment or the profile, or "".
func (s *service) configured(ctx context.Context) (string, error) {
	own := "AWS_ENDPOINT_URL_" + strings.ToUpper(strings.ReplaceAll(s.sdkID, " ", "_"))
	_, all := os.LookupEnv("AWS_ENDPOINT_URL") // which takes precedence over the profile
	if _, one := os.LookupEnv(own); one || !all {
		for _, source := range s.session.config.ConfigSources {
			if off, ok := source.(interface {
				GetIgnoreConfiguredEndpoints(ctx context.Context) (bool, bool, error)
			}); ok {
				if ignore, found, err := off.GetIgnoreConfiguredEndpoints(ctx); err != nil || found && ignore {
					return "", err
				}
			}
			of, ok := source.(interface {
				GetServiceBaseEndpoint(ctx context.Context, sdkID string) (string, bool, error)
			})
			if !ok {
				continue
			}
			if at, found, err := of.GetServiceBaseEndpoint(ctx, s.sdkID); err != nil || found {
				return at, err
			}
		}
	}
	return aws.ToString(s.session.config.BaseEndpoint), nil
}
