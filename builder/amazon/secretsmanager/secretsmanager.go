// Package secretsmanager is the amazon-secretsmanager data source: it reads a secret
// from AWS Secrets Manager.
package secretsmanager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"bake/builder/amazon/internal/access"
	"bake/component"
	"bake/config/schema"
	"bake/datasource"
)

// Options of the data source amazon-secretsmanager.
type Options struct {
	access.Options

	// Name or ARN of the secret. A secret in another account needs its ARN.
	Name string `hcl:"name"`

	// Which value to return, if the secret is a JSON object. Not set: the value of the first
	// key in alphabetical order.
	Key string `hcl:"key,optional"`

	// ID of the version to read. Not set: `version_stage` decides.
	VersionID string `hcl:"version_id,optional"`

	// Staging label of the version to read.
	VersionStage string `hcl:"version_stage,optional"`
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	o.Options.Validate(c)
	if o.Name == "" && c.Known(&o.Name) {
		c.Errorf(&o.Name, "No name", "Set name to the secret to look up.")
	}
}

// Factory returns the factory of the data source. cloud replaces AWS, and env is the
// environment as "NAME=value".
func Factory(cloud access.Cloud, env []string) component.Factory[datasource.DataSource] {
	defaults := func() Options { return Options{Options: access.Defaults(), VersionStage: "AWSCURRENT"} }
	return component.Define("amazon-secretsmanager", defaults,
		func(o *Options, src *schema.Source) datasource.DataSource { return &data{o, src, cloud, env} }).
		Exporting(map[string]cty.Type{"value": cty.String, "secret_string": cty.String, "secret_binary": cty.String, "version_id": cty.String})
}

type data struct {
	*Options
	src   *schema.Source
	cloud access.Cloud
	env   []string
}

// Read implements [datasource.DataSource]. All values are marked as secret.
func (d *data) Read(ctx context.Context) (cty.Value, error) {
	session, err := access.Open(ctx, &d.Options.Options, d.src, d.cloud, d.env)
	if err != nil {
		return cty.NilVal, err
	}
	in := map[string]any{"SecretId": d.Name}
	if d.VersionID != "" {
		in["VersionId"] = d.VersionID
	}
	if d.VersionStage != "" {
		in["VersionStage"] = d.VersionStage
	}
	var out struct {
		SecretString, VersionID string
		SecretBinary            []byte
	}
	err = session.SecretsManager().Do(ctx, "GetSecretValue", in, &out)
	if access.Is(err, "ResourceNotFoundException") {
		return cty.NilVal, d.src.Errorf(&d.Name, "No such secret", "%s (%s in %s).", strings.TrimSuffix(err.Error(), "."), d.Name, session.Region)
	}
	if err != nil {
		return cty.NilVal, err
	}
	text, binary := out.SecretString, string(out.SecretBinary)
	d.src.Secret(text)
	d.src.Secret(binary)
	value, all, err := pick(text, d.Key)
	for _, v := range all {
		d.src.Secret(v)
	}
	if err != nil {
		return cty.NilVal, d.src.Errorf(&d.Key, "Invalid secret", "Secret %s: %s.", d.Name, err)
	}
	return cty.ObjectVal(map[string]cty.Value{
		"value": cty.StringVal(value), "secret_string": cty.StringVal(text), "secret_binary": cty.StringVal(binary),
		"version_id": cty.StringVal(out.VersionID),
	}), nil
}

// pick returns the value of key in text, a JSON object, or that of the first key if key is
// empty. The value of a missing key is empty. If text is not a JSON object, it is the value
// itself. all are the texts in the object.
func pick(text, key string) (value string, all []string, err error) {
	var object map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if d.Decode(&object) != nil || d.More() || object == nil {
		return text, nil, nil
	}
	for _, v := range object {
		if s, ok := v.(string); ok {
			all = append(all, s)
		}
	}
	if len(object) == 0 {
		return "", nil, errors.New("it is an empty JSON object")
	}
	if key == "" {
		key = slices.Min(slices.Collect(maps.Keys(object)))
	}
	switch v := object[key].(type) {
	case nil:
		return "", all, nil
	case string:
		return v, all, nil
	case json.Number:
		return v.String(), all, nil
	default:
		return "", all, fmt.Errorf("the value of %q is neither a string nor a number", key)
	}
}
