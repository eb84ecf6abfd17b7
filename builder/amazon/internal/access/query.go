package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bake/internal/debuglog"
	"bake/internal/delay"
)

// Query makes calls of a service that speaks the query protocol without the SDK's
// client of it: that of Auto Scaling alone would add 700 kB to the program, for two
// calls. A call that fails in a way that passes is sent again, so it must be one that may
// be repeated.
type Query struct {
	session *Session
	region  string
	service string // as signatures and permissions name it
	sdkID   string // as the variables of endpoints name it
	version string // of the API
}

// AutoScaling makes calls of EC2 Auto Scaling in a region.
func (s *Session) AutoScaling(region string) *Query {
	return &Query{s, region, "autoscaling", "Auto Scaling", "2011-01-01"}
}

// EC2Query makes calls of EC2 in a region.
func (s *Session) EC2Query(region string) *Query {
	return &Query{s, region, "ec2", "EC2", "2016-11-15"}
}

// maxAnswer is how much of an answer is read. A page of the largest is a few megabytes.
const maxAnswer = 64 << 20

// Do makes one call and decodes its answer, the element ACTIONResponse, into out as
// [encoding/xml] does. Its errors are those of [Call].
func (q *Query) Do(ctx context.Context, action string, params url.Values, out any) error {
	body := url.Values{"Action": {action}, "Version": {q.version}}
	for k, v := range params {
		body[k] = v
	}
	start, requests := time.Now(), 0
	retryer := q.session.config.Retryer()
	for {
		requests++
		err := q.send(ctx, action, []byte(body.Encode()), out)
		debuglog.From(ctx).DebugContext(ctx, "aws call", "service", q.sdkID, "operation", action, "region", q.region, "took", time.Since(start), "attempts", requests, "error", err)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		err = &smithy.OperationError{ServiceID: q.service, OperationName: action, Err: err}
		if requests >= retryer.MaxAttempts() || !retryer.IsErrorRetryable(err) {
			return explain(err, requests)
		}
		pause, stop := retryer.RetryDelay(requests, err)
		if stop != nil {
			return explain(err, requests)
		}
		if err := delay.For(ctx, pause); err != nil {
			return err
		}
	}
}

// send sends the call once.
func (q *Query) send(ctx context.Context, action string, body []byte, out any) error {
	endpoint, err := q.endpoint(ctx)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	creds, err := q.session.config.Credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	hash := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, creds, req, hex.EncodeToString(hash[:]), q.service, q.region, time.Now()); err != nil {
		return err
	}
	resp, err := q.session.config.HTTPClient.Do(req)
	if err != nil {
		return &smithyhttp.RequestSendError{Err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(text) > maxAnswer {
		err = fmt.Errorf("the answer is larger than %d MB", maxAnswer>>20)
	}
	if err == nil {
		err = decode(action, resp.StatusCode, text, out)
	}
	if err != nil {
		return &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: resp}, Err: err}
	}
	return nil
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
	var root struct{ XMLName xml.Name }
	err := xml.Unmarshal(text, &root)
	if err == nil && root.XMLName.Local != action+"Response" {
		err = fmt.Errorf("the answer does not begin with <%sResponse>", action)
	}
	if err == nil {
		err = xml.Unmarshal(text, out)
	}
	if err != nil {
		return torn{&smithy.DeserializationError{Err: err}}
	}
	return nil
}

// queryError is what services say of a call that they have not carried out.
type queryError struct{ Code, Message string }

// endpoint is where the SDK's client of the service would send its calls.
func (q *Query) endpoint(ctx context.Context) (string, error) {
	s := q.session
	if s.Cloud.Endpoint != "" {
		return s.Cloud.Endpoint, nil
	}
	of := s.EC2(q.region).Options()
	if q.sdkID == ec2.ServiceID && of.BaseEndpoint != nil {
		return *of.BaseEndpoint, nil
	}
	if own, err := q.configured(ctx); own != "" || err != nil {
		return own, err
	}
	at, err := ec2.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, ec2.EndpointParameters{
		Region:       aws.String(q.region),
		UseDualStack: aws.Bool(of.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled),
		UseFIPS:      aws.Bool(of.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled),
	})
	if err != nil {
		return "", err
	}
	// In every partition they differ in the name of the service alone.
	at.URI.Host = q.service + strings.TrimPrefix(at.URI.Host, "ec2")
	return at.URI.String(), nil
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
