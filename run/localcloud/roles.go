package localcloud

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"bake/builder/amazon"
)

// EnsureRole creates a role in an account of the cloud, unless it exists, so that work
// that uses roles in AWS can be tried without creating them first.
func (c *Cloud) EnsureRole(ctx context.Context, arn string) error {
	parts := strings.Split(arn, ":")
	if len(parts) < 6 {
		return fmt.Errorf("%s is not the ARN of a role", arn)
	}
	key, secret, err := c.key(parts[4])
	if err != nil {
		return err
	}
	in := c.Cloud
	in.AccessKey, in.SecretKey = key, secret
	return amazon.EnsureRole(ctx, in, arn)
}

// key returns the access key of an account, from the credentials file.
func (c *Cloud) key(account string) (id, secret string, err error) {
	f, err := os.Open(c.open.CredentialsFile)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		name, value, _ := strings.Cut(in.Text(), " = ")
		switch {
		case name == "aws_access_key_id":
			id = value
		case name == "aws_secret_access_key" && strings.HasSuffix(id, account):
			return id, value, nil
		}
	}
	return "", "", errors.New("the local cloud has no account " + account + ": another process serves it, and made it without that; end that one, such as bake cloud up, to have the account made")
}
