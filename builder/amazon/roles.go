package amazon

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"bake/builder/amazon/internal/access"
)

// EnsureRole makes the role with this ARN, which anyone may assume, in the account of the
// cloud's credentials, unless a role of that name exists. It is for clouds that replace
// AWS, where a role grants no real permissions.
func EnsureRole(ctx context.Context, cloud Cloud, arn string) error {
	o := access.Defaults()
	session, err := access.Open(ctx, &o, nil, cloud, nil)
	if err != nil {
		return err
	}
	_, path, ok := strings.Cut(arn, ":role/")
	if !ok || !session.Cloud.StandsIn() {
		return fmt.Errorf("%s is not a role that can be made", arn)
	}
	i := strings.LastIndex(path, "/") + 1
	params := url.Values{
		"RoleName": {path[i:]}, "Path": {"/" + path[:i]},
		"AssumeRolePolicyDocument": {`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`},
	}
	err = session.IAM().Do(ctx, "CreateRole", params, nil)
	if access.Is(err, "EntityAlreadyExists") {
		return nil
	}
	return err
}
