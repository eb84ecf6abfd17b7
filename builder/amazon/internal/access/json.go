package access

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/aws/smithy-go"
	smithytime "github.com/aws/smithy-go/time"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// JSON makes calls of a service with the JSON protocol 1.1.
type JSON struct {
	service
	target string // prefix of the action in the header X-Amz-Target
}

// SSM makes calls of Systems Manager in a region.
func (s *Session) SSM(region string) *JSON {
	return &JSON{service{session: s, region: region, name: "ssm", sdkID: "SSM"}, "AmazonSSM"}
}

// SecretsManager makes calls of Secrets Manager in the region of the build.
func (s *Session) SecretsManager() *JSON {
	return &JSON{service{session: s, region: s.config.Region, name: "secretsmanager", sdkID: "Secrets Manager", govFIPS: true, both: true}, "secretsmanager"}
}

// KMS makes calls of the Key Management Service in a region, at another host if one is
// given.
func (s *Session) KMS(region, host string) *JSON {
	k := &JSON{service{session: s, region: region, name: "kms", sdkID: "KMS", govFIPS: true}, "TrentService"}
	if host != "" {
		k.base = "https://" + host
	}
	return k
}

// InstanceConnect makes calls of EC2 Instance Connect in the region of the build.
func (s *Session) InstanceConnect() *JSON {
	return &JSON{service{session: s, region: s.config.Region, name: "ec2-instance-connect", sdkID: "EC2 Instance Connect", govFIPS: true}, "AWSEC2InstanceConnectService"}
}

// Do makes one call with the parameters in, and decodes its response into out as
// [encoding/json] does. If out is nil, it ignores the response. Its errors are those of
// [Call].
func (j *JSON) Do(ctx context.Context, action string, in, out any) error {
	_, err := Call(ctx, operation[any](&j.service, action, jsonCall{j.target, out}), &in)
	return err
}

// Finish is [JSON.Do] for an action that creates a resource; see [Finish].
func (j *JSON) Finish(ctx context.Context, action string, in, out any) error {
	_, err := Finish(ctx, operation[any](&j.service, action, jsonCall{j.target, out}), &in)
	return err
}

// jsonCall is a call in the JSON protocol.
type jsonCall struct {
	target string
	out    any
}

// encode implements [protocol].
func (c jsonCall) encode(req *smithyhttp.Request, action string, params any) (io.ReadSeeker, error) {
	body, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", c.target+"."+action)
	return bytes.NewReader(body), nil
}

// decode implements [protocol].
func (c jsonCall) decode(_ string, resp *smithyhttp.Response, text []byte) error {
	if resp.StatusCode/100 != 2 {
		var failed struct {
			Code    string `json:"code"`
			Type    string `json:"__type"`
			Message string `json:"message"` // or Message
		}
		_ = json.Unmarshal(text, &failed) // otherwise there is no code
		// "com.amazonaws.service#Code:http://…" is Code.
		code, _, _ := strings.Cut(cmp.Or(resp.Header.Get("X-Amzn-ErrorType"), failed.Code, failed.Type), ":")
		code = code[strings.LastIndex(code, "#")+1:]
		if code == "" {
			return &smithy.GenericAPIError{Code: noCode, Message: noCode}
		}
		return &smithy.GenericAPIError{Code: code, Message: failed.Message}
	}
	out := c.out
	if out == nil {
		if out = new(struct{}); len(text) == 0 {
			return nil
		}
	}
	if err := json.Unmarshal(text, out); err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	return nil
}

// Timestamp is a time in the JSON protocol: seconds since 1970.
type Timestamp struct{ time.Time }

// UnmarshalJSON implements [json.Unmarshaler].
func (t *Timestamp) UnmarshalJSON(text []byte) error {
	var seconds float64
	if err := json.Unmarshal(text, &seconds); err != nil {
		return err
	}
	*t = Timestamp{smithytime.ParseEpochSeconds(seconds)}
	return nil
}
