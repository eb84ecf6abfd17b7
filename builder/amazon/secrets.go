package amazon

import (
	"context"
	"fmt"
	"sync"

	"bake/builder/amazon/internal/access"
)

// Secrets returns a function that looks up the text of the current version of a secret of
// AWS Secrets Manager, in the account and region of the AWS configuration, or in the cloud
// that replaces AWS. Each secret is requested once. The function is safe for concurrent
// use.
func Secrets(cloud Cloud, env []string) func(ctx context.Context, name string) (string, error) {
	var mu sync.Mutex
	var session *access.Session
	found := map[string]string{}
	return func(ctx context.Context, name string) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if text, ok := found[name]; ok {
			return text, nil
		}
		if session == nil {
			o := access.Defaults()
			o.SkipCredentialValidation = true
			opened, err := access.Open(ctx, &o, nil, cloud, env)
			if err != nil {
				return "", err
			}
			session = opened
		}
		var out struct{ SecretString *string }
		if err := session.SecretsManager().Do(ctx, "GetSecretValue", map[string]any{"SecretId": name}, &out); err != nil {
			return "", err
		}
		if out.SecretString == nil {
			return "", fmt.Errorf("the secret %s is binary, not text; the data source amazon-secretsmanager reads it", name)
		}
		found[name] = *out.SecretString
		return *out.SecretString, nil
	}
}
