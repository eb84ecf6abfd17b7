package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder/amazon/internal/wait"
	"bake/internal/envvar"
	"bake/internal/tlsfiles"
)

// vaultTimeout is the time limit for a response of Vault, which in turn calls AWS.
const vaultTimeout = time.Minute

// vault is a client of a HashiCorp Vault, configured by the environment variables of
// Vault's own client: VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT and
// VAULT_SKIP_VERIFY.
type vault struct {
	client    *http.Client
	address   string
	token     string
	namespace string
}

func openVault(env []string) (*vault, error) {
	get := func(name string) string { return envvar.Get(env, name) }
	v := &vault{address: get("VAULT_ADDR"), token: get("VAULT_TOKEN"), namespace: get("VAULT_NAMESPACE")}
	if v.address == "" {
		v.address = "https://127.0.0.1:8200"
	}
	if v.token == "" {
		return nil, errors.New("VAULT_TOKEN is not set in the environment")
	}
	skip := strings.ToLower(get("VAULT_SKIP_VERIFY"))
	var err error
	v.client, err = tlsfiles.FromEnvironment(get, "VAULT_CACERT", slices.Contains([]string{"1", "t", "true"}, skip), vaultTimeout)
	return v, err
}

// credentials requests credentials from Vault's secrets engine for AWS. Each call creates
// new ones.
func (v *vault) credentials(ctx context.Context, o *VaultAWSEngine) (aws.Credentials, error) {
	method, kind := http.MethodGet, "creds"
	var body []byte
	if o.RoleARN != "" {
		ask := map[string]string{"role_arn": o.RoleARN}
		if o.TTL != "" {
			ask["ttl"] = o.TTL
		}
		var err error
		if body, err = json.Marshal(ask); err != nil {
			return aws.Credentials{}, err
		}
		method, kind = http.MethodPut, "sts"
	}
	at := strings.TrimSuffix(v.address, "/") + "/v1/" + strings.Trim(o.EngineName, "/") + "/" + kind + "/" + url.PathEscape(o.Name)
	req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return aws.Credentials{}, err
	}
	req.Header.Set("X-Vault-Token", v.token)
	req.Header.Set("X-Vault-Request", "true")
	if v.namespace != "" {
		req.Header.Set("X-Vault-Namespace", v.namespace)
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return aws.Credentials{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return aws.Credentials{}, err
	}
	var answer struct {
		Errors []string `json:"errors"`
		Data   struct {
			AccessKey string `json:"access_key"`
			SecretKey string `json:"secret_key"`
			Token     string `json:"security_token"`
		} `json:"data"`
	}
	if err := json.Unmarshal(text, &answer); err != nil && resp.StatusCode == http.StatusOK {
		return aws.Credentials{}, fmt.Errorf("%s did not answer with JSON", req.URL.Redacted())
	}
	if resp.StatusCode != http.StatusOK {
		return aws.Credentials{}, fmt.Errorf("%s answered %s: %s", req.URL.Redacted(), resp.Status, strings.TrimSpace(strings.Join(answer.Errors, "; ")))
	}
	if answer.Data.AccessKey == "" || answer.Data.SecretKey == "" {
		return aws.Credentials{}, fmt.Errorf("%s returned no access key", req.URL.Redacted())
	}
	return aws.Credentials{AccessKeyID: answer.Data.AccessKey, SecretAccessKey: answer.Data.SecretKey, SessionToken: answer.Data.Token, Source: "Vault"}, nil
}

// settle waits until AWS accepts new credentials.
func (s *Session) settle(ctx context.Context) error {
	w := wait.Watch{Delay: 5 * time.Second, Limit: 2 * time.Minute}
	return w.Until(ctx, "AWS to accept the credentials from Vault", func(ctx context.Context) (bool, error) {
		_, err := Call(ctx, s.EC2(s.Region).DescribeRegions, &ec2.DescribeRegionsInput{})
		if Is(err, "AuthFailure", "InvalidClientTokenId") {
			return false, nil
		}
		// Credentials without permission to list regions are valid too.
		return err == nil || Is(err, "UnauthorizedOperation"), err
	})
}
