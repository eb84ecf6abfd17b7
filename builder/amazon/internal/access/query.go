package access

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
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
)

// Query makes calls of a service that speaks the query protocol without the SDK's
// client of it: that of Auto Scaling alone would add 700 kB to the program, for two
// calls, and that of IAM 500 kB, for a dozen. The calls pass through what those of the
// SDK's clients pass through, so that they are retried, logged and explained alike.
type Query struct {
	session *Session
	region  string
	service string // as signatures and permissions name it
	sdkID   string // as the variables of endpoints name it
	version string // of the API
	global  bool   // one host serves all regions of a partition
}

// AutoScaling makes calls of EC2 Auto Scaling in a region.
func (s *Session) AutoScaling(region string) *Query {
	return &Query{session: s, region: region, service: "autoscaling", sdkID: "Auto Scaling", version: "2011-01-01"}
}

// EC2Query makes calls of EC2 in a region.
func (s *Session) EC2Query(region string) *Query {
	return &Query{session: s, region: region, service: "ec2", sdkID: ec2.ServiceID, version: "2016-11-15"}
}

// IAM makes calls of IAM.
func (s *Session) IAM() *Query {
	return &Query{session: s, region: cmp.Or(s.config.Region, "us-east-1"), service: "iam", sdkID: "IAM", version: "2010-05-08", global: true}
}

// maxAnswer is how much of an answer is read. A page of the largest is a few megabytes.
const maxAnswer = 64 << 20

// Do makes one call and decodes its answer, the element ACTIONResponse, into out as
// [encoding/xml] does; nil: it does not matter. Its errors are those of [Call].
func (q *Query) Do(ctx context.Context, action string, params url.Values, out any) error {
	_, err := Call(ctx, q.operation(action, out), &params)
	return err
}

// Finish is [Query.Do] for what makes something, as [Finish] is [Call].
func (q *Query) Finish(ctx context.Context, action string, params url.Values) error {
	_, err := Finish(ctx, q.operation(action, nil), &params)
	return err
}

// operation is a call as [Call] makes it.
func (q *Query) operation(action string, out any) func(context.Context, *url.Values, ...func(*struct{})) (*struct{}, error) {
	return func(ctx context.Context, params *url.Values, _ ...func(*struct{})) (*struct{}, error) {
		ctx = middleware.WithOperationName(middleware.WithServiceID(middleware.ClearStackValues(ctx), q.sdkID), action)
		stack, err := q.stack(action, out)
		if err != nil {
			return nil, err
		}
		handler := middleware.DecorateHandler(smithyhttp.NewClientHandlerWithOptions(q.session.config.HTTPClient), stack)
		if _, _, err := handler.Handle(ctx, *params); err != nil {
			return nil, &smithy.OperationError{ServiceID: q.service, OperationName: action, Err: err}
		}
		return &struct{}{}, nil
	}
}

// stack is what a call passes through, in the steps of the SDK's clients and with the
// names that the session's own middleware looks for.
func (q *Query) stack(action string, out any) (*middleware.Stack, error) {
	stack := middleware.NewStack(action, smithyhttp.NewStackRequest)
	errs := []error{
		stack.Initialize.Add(&awsmiddleware.RegisterServiceMetadata{ServiceID: q.sdkID, SigningName: q.service, Region: q.region, OperationName: action}, middleware.Before),
		stack.Serialize.Add(middleware.SerializeMiddlewareFunc("OperationSerializer", q.serialize), middleware.After),
		awsmiddleware.AddClientRequestIDMiddleware(stack),
		awsmiddleware.AddRequestUserAgentMiddleware(stack),
		stack.Finalize.Add(retry.NewAttemptMiddleware(q.session.config.Retryer(), smithyhttp.RequestCloner), middleware.After),
		stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("Signing", q.signer()), middleware.After),
		awsmiddleware.AddRawResponseToMetadata(stack),
		stack.Deserialize.Add(deserializer(action, out), middleware.After),
		awsmiddleware.AddRecordResponseTiming(stack),
		awsmiddleware.AddRequestIDRetrieverMiddleware(stack),
	}
	for _, add := range q.session.config.APIOptions {
		errs = append(errs, add(stack))
	}
	return stack, errors.Join(errs...)
}

// serialize makes the request of a call.
func (q *Query) serialize(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (out middleware.SerializeOutput, metadata middleware.Metadata, err error) {
	req := in.Request.(*smithyhttp.Request)
	params, ok := in.Parameters.(url.Values)
	if !ok {
		return out, metadata, &smithy.SerializationError{Err: fmt.Errorf("parameters are %T", in.Parameters)}
	}
	endpoint, region, err := q.endpoint(ctx)
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
	body := url.Values{"Action": {middleware.GetOperationName(ctx)}, "Version": {q.version}}
	maps.Copy(body, params)
	req.Method = http.MethodPost
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if req, err = req.SetStream(strings.NewReader(body.Encode())); err != nil {
		return out, metadata, &smithy.SerializationError{Err: err}
	}
	in.Request = req
	return next.HandleSerialize(ctx, in)
}

// signer signs each request of a call, by the clock of the service once it has told that
// this machine's is wrong.
func (q *Query) signer() func(context.Context, middleware.FinalizeInput, middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
	var skew time.Duration
	return func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (out middleware.FinalizeOutput, metadata middleware.Metadata, err error) {
		req := in.Request.(*smithyhttp.Request)
		hash := sha256.New()
		if _, err := io.Copy(hash, req.GetStream()); err != nil {
			return out, metadata, err
		}
		if err := req.RewindStream(); err != nil {
			return out, metadata, err
		}
		creds, err := q.session.config.Credentials.Retrieve(ctx)
		if err != nil {
			return out, metadata, &v4.SigningError{Err: fmt.Errorf("get credentials: %w", err)}
		}
		region, _ := middleware.GetStackValue(ctx, signingRegion{}).(string)
		err = v4.NewSigner().SignHTTP(ctx, creds, req.Request, hex.EncodeToString(hash.Sum(nil)), q.service, region, time.Now().Add(skew))
		if err != nil {
			return out, metadata, &v4.SigningError{Err: err}
		}
		out, metadata, err = next.HandleFinalize(ctx, in)
		skew, _ = awsmiddleware.GetAttemptSkew(metadata)
		return out, metadata, err
	}
}

// deserializer reads the answers to a call.
func deserializer(action string, into any) middleware.DeserializeMiddleware {
	return middleware.DeserializeMiddlewareFunc("OperationDeserializer",
		func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
			out, metadata, err := next.HandleDeserialize(ctx, in)
			resp, ok := out.RawResponse.(*smithyhttp.Response)
			if err != nil || !ok {
				return out, metadata, err
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
			switch {
			case err != nil:
				err = &smithy.DeserializationError{Err: err}
			case len(text) > maxAnswer:
				err = fmt.Errorf("the answer is larger than %d MB", maxAnswer>>20)
			default:
				err = decode(action, resp.StatusCode, text, into)
			}
			if err != nil {
				err = &smithyhttp.ResponseError{Response: resp, Err: err}
			}
			return out, metadata, err
		})
}

// decode reads the answer to a call: of one that was carried out, into out.
func decode(action string, status int, text []byte, out any) error {
	if status/100 != 2 {
		var failed struct {
			Error  queryError   // as the query protocol has it
			Errors []queryError `xml:"Errors>Error"` // as EC2 has it
		}
		_ = xml.Unmarshal(text, &failed) // else there is no code
		for _, e := range append(failed.Errors, failed.Error) {
			if e.Code != "" {
				return &smithy.GenericAPIError{Code: e.Code, Message: e.Message}
			}
		}
		return &smithy.GenericAPIError{Code: noCode, Message: noCode}
	}
	if out == nil {
		return nil
	}
	var root struct{ XMLName xml.Name }
	err := xml.Unmarshal(text, &root)
	if err == nil && root.XMLName.Local != action+"Response" {
		err = fmt.Errorf("the answer does not begin with <%sResponse>", action)
	}
	if err == nil {
		err = xml.Unmarshal(text, out)
	}
	if err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	return nil
}

// queryError is what services say of a call that they have not carried out.
type queryError struct{ Code, Message string }

// signingRegion is the key of the region that a call is signed for, in its context.
type signingRegion struct{}

// endpoint is where the SDK's client of the service would send its calls, and the region
// that it would sign them for.
func (q *Query) endpoint(ctx context.Context) (address, region string, err error) {
	if own, err := q.given(ctx); own != "" || err != nil {
		return own, q.region, err
	}
	of := q.session.EC2(q.region).Options().EndpointOptions
	dual, fips := of.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled, of.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled
	at := func(dual, fips bool) (*url.URL, error) {
		at, err := ec2.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, ec2.EndpointParameters{Region: &q.region, UseDualStack: &dual, UseFIPS: &fips})
		return &at.URI, err
	}
	if q.global {
		usual, err := at(false, false)
		if err != nil {
			return "", "", err
		}
		host, home := globalHost(q.region, usual.Host, dual, fips)
		return "https://" + q.service + host, home, nil
	}
	// In every partition they differ in the name of the service alone.
	found, err := at(dual, fips)
	if err != nil {
		return "", "", err
	}
	found.Host = q.service + strings.TrimPrefix(found.Host, "ec2")
	return found.String(), q.region, nil
}

// given is the endpoint that somebody has set, or "".
func (q *Query) given(ctx context.Context) (string, error) {
	s := q.session
	switch {
	case s.Cloud.Endpoint != "":
		return s.Cloud.Endpoint, nil
	case q.sdkID == ec2.ServiceID:
		if at := s.EC2(q.region).Options().BaseEndpoint; at != nil {
			return *at, nil
		}
	case q.global && s.iam != "":
		return s.iam, nil
	}
	return q.configured(ctx)
}

// configured is what the environment or the profile has for the endpoint, or "".
func (q *Query) configured(ctx context.Context) (string, error) {
	own := "AWS_ENDPOINT_URL_" + strings.ToUpper(strings.ReplaceAll(q.sdkID, " ", "_"))
	_, all := os.LookupEnv("AWS_ENDPOINT_URL") // which wins over the profile's
	if _, one := os.LookupEnv(own); one || !all {
		for _, source := range q.session.config.ConfigSources {
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
			if at, found, err := of.GetServiceBaseEndpoint(ctx, q.sdkID); err != nil || found {
				return at, err
			}
		}
	}
	return aws.ToString(q.session.config.BaseEndpoint), nil
}
