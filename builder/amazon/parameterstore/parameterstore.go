// Package parameterstore is the amazon-parameterstore data source: it reads a parameter
// from AWS Systems Manager.
package parameterstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/aws/smithy-go"
	"github.com/zclconf/go-cty/cty"

	"bake/builder/amazon/internal/access"
	"bake/component"
	"bake/config/schema"
	"bake/datasource"
)

// Options of the data source amazon-parameterstore.
type Options struct {
	access.Options

	// Name of the parameter, optionally followed by a version, as in `/app/host:3`.
	Name string `hcl:"name"`

	// Decrypt the value of a SecureString; needs kms:Decrypt. Otherwise the value is the
	// ciphertext.
	WithDecryption bool `hcl:"with_decryption,optional"`
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	o.Options.Validate(c)
	if o.Name == "" && c.Known(&o.Name) {
		c.Errorf(&o.Name, "No name", "Set name to the parameter to look up.")
	}
}

// Factory returns the factory of the data source. cloud replaces AWS, and env is the
// environment as "NAME=value".
func Factory(cloud access.Cloud, env []string) component.Factory[datasource.DataSource] {
	defaults := func() Options { return Options{Options: access.Defaults()} }
	return component.Define("amazon-parameterstore", defaults,
		func(o *Options, src *schema.Source) datasource.DataSource { return &data{o, src, cloud, env} }).
		Exporting(map[string]cty.Type{"value": cty.String, "version": cty.String, "arn": cty.String})
}

type data struct {
	*Options
	src   *schema.Source
	cloud access.Cloud
	env   []string
}

// Read implements [datasource.DataSource]. The value of a SecureString is marked as secret.
func (d *data) Read(ctx context.Context) (cty.Value, error) {
	session, err := access.Open(ctx, &d.Options.Options, d.src, d.cloud, d.env)
	if err != nil {
		return cty.NilVal, err
	}
	var out struct {
		Parameter struct {
			Value, Type, ARN string
			Version          int64
		}
	}
	err = session.SSM(session.Region).Do(ctx, "GetParameter", map[string]any{"Name": d.Name, "WithDecryption": d.WithDecryption}, &out)
	switch {
	case access.Is(err, "ParameterNotFound"):
		return cty.NilVal, d.src.Errorf(&d.Name, "No such parameter", "%s", d.unknown(err, session.Region))
	case access.Is(err, "ParameterVersionNotFound"):
		return cty.NilVal, d.src.Errorf(&d.Name, "No such version", "%s.", err)
	case err != nil:
		return cty.NilVal, err
	}
	p := out.Parameter
	if p.Type == "SecureString" {
		d.src.Secret(p.Value)
	}
	return cty.ObjectVal(map[string]cty.Value{
		"value": cty.StringVal(p.Value), "version": cty.StringVal(strconv.FormatInt(p.Version, 10)), "arn": cty.StringVal(p.ARN),
	}), nil
}

// unknown returns the message for a missing parameter. For public parameters, the service
// may provide more details.
func (d *data) unknown(err error, region string) string {
	text := fmt.Sprintf("There is no parameter %s in %s.", d.Name, region)
	if e, ok := errors.AsType[smithy.APIError](err); ok && e.ErrorMessage() != "" {
		text += " " + e.ErrorMessage()
	}
	return text
}
