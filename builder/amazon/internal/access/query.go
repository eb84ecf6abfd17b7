package access

import (
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Query makes calls of a service with the query protocol.
type Query struct {
	service
	version string // of the API
}

// AutoScaling makes calls of EC2 Auto Scaling in a region.
func (s *Session) AutoScaling(region string) *Query {
	return &Query{service{session: s, region: region, name: "autoscaling", sdkID: "Auto Scaling"}, "2011-01-01"}
}

// EC2Query makes calls of EC2 in a region.
func (s *Session) EC2Query(region string) *Query {
	return &Query{service{session: s, region: region, name: "ec2", sdkID: ec2.ServiceID}, "2016-11-15"}
}

// IAM makes calls of IAM.
func (s *Session) IAM() *Query {
	return &Query{service{session: s, region: cmp.Or(s.config.Region, "us-east-1"), name: "iam", sdkID: "IAM", global: true}, "2010-05-08"}
}

// Do makes one call and decodes the element ACTIONResponse of its response into out as
// [encoding/xml] does. If out is nil, it ignores the response. Its errors are those of
// [Call].
func (q *Query) Do(ctx context.Context, action string, params url.Values, out any) error {
	_, err := Call(ctx, operation[url.Values](&q.service, action, queryCall{q.version, out}), &params)
	return err
}

// Finish is [Query.Do] for an action that creates a resource; see [Finish].
func (q *Query) Finish(ctx context.Context, action string, params url.Values) error {
	_, err := Finish(ctx, operation[url.Values](&q.service, action, queryCall{q.version, nil}), &params)
	return err
}

// queryCall is a call in the query protocol.
type queryCall struct {
	version string
	out     any
}

// encode implements [protocol].
func (c queryCall) encode(req *smithyhttp.Request, action string, params any) (io.ReadSeeker, error) {
	given, ok := params.(*url.Values)
	if !ok {
		return nil, fmt.Errorf("parameters are %T", params)
	}
	body := url.Values{"Action": {action}, "Version": {c.version}}
	maps.Copy(body, *given)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return strings.NewReader(body.Encode()), nil
}

// decode implements [protocol].
func (c queryCall) decode(action string, resp *smithyhttp.Response, text []byte) error {
	if resp.StatusCode/100 != 2 {
		var failed struct {
			Error  queryError   // in the query protocol
			Errors []queryError `xml:"Errors>Error"` // in EC2
		}
		_ = xml.Unmarshal(text, &failed) // otherwise there is no code
		for _, e := range append(failed.Errors, failed.Error) {
			if e.Code != "" {
				return &smithy.GenericAPIError{Code: e.Code, Message: e.Message}
			}
		}
		return &smithy.GenericAPIError{Code: noCode, Message: noCode}
	}
	if c.out == nil {
		return nil
	}
	var root struct{ XMLName xml.Name }
	err := xml.Unmarshal(text, &root)
	if err == nil && root.XMLName.Local != action+"Response" {
		err = fmt.Errorf("the answer does not begin with <%sResponse>", action)
	}
	if err == nil {
		err = xml.Unmarshal(text, c.out)
	}
	if err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	return nil
}

// queryError is the error that services return for a failed call.
type queryError struct{ Code, Message string }
