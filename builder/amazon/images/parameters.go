package images

import (
	"context"

	"bake/builder/amazon/internal/access"
)

// parameterVersion is a version of a parameter of Systems Manager; fields that are not
// known are empty.
type parameterVersion struct {
	Name, ARN, Selector, Value, DataType, Description, LastModifiedUser string
	Version                                                             int64
	LastModifiedDate                                                    access.Timestamp
}

// parameterHistory calls next with each version of a parameter.
func parameterHistory(ctx context.Context, client *access.JSON, name string, next func(parameterVersion)) error {
	return parameterPages(ctx, client, "GetParameterHistory", map[string]any{"Name": name, "MaxResults": 50}, next)
}

// parameterPages calls next with each parameter of all pages of an answer.
func parameterPages(ctx context.Context, client *access.JSON, action string, in map[string]any, next func(parameterVersion)) error {
	for {
		var out struct {
			Parameters []parameterVersion
			NextToken  string
		}
		if err := client.Do(ctx, action, in, &out); err != nil {
			return err
		}
		for _, p := range out.Parameters {
			next(p)
		}
		if out.NextToken == "" {
			return nil
		}
		in["NextToken"] = out.NextToken
	}
}
