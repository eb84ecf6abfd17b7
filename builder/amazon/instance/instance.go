// Package instance is the builder amazon-instance: an instance without an EBS root bundles
// its own disk and uploads the bundle to S3, where it is registered as an image.
package instance

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/image"
	"bake/communicator"
	"bake/internal/hostpath"
	"bake/internal/script"
	"bake/step"
)

// builderID is the builder ID in the artifacts of this builder.
const builderID = "mitchellh.amazon.instance"

// Factory returns the factory of the builder. cloud replaces AWS.
func Factory(cloud access.Cloud) amazonbuild.Factory {
	return amazonbuild.Define("amazon-instance", builderID, cloud, defaults, func(o *Options) amazonbuild.Recipe {
		return amazonbuild.Recipe{
			Access: &o.Access.Options, Launch: &o.Launch.Options, Image: &o.Image.Options,
			Devices: o.Launch.devices(),
			Hooks:   o.hooks, Permissions: o.permissions,
		}
	})
}

func (o *Options) hooks(b *amazonbuild.Build) (hooks amazonbuild.Hooks, err error) {
	b.Machines.InstanceStore = true
	u := &bundling{Options: o, Build: b}
	if u.prefix, err = b.Render(&o.BundlePrefix, o.BundlePrefix, nil); err != nil {
		return hooks, err
	}
	return amazonbuild.Hooks{Finish: u.bundle, Make: u.register}, nil
}

// bundling bundles one machine's disk in S3, and makes an image of the bundle.
type bundling struct {
	*Options
	*amazonbuild.Build
	prefix string
}

// register makes an image of the bundle.
func (u *bundling) register(ctx context.Context) (image.Made, error) {
	in := u.Images.Request(image.Firmware{Architecture: image.Architecture(u.Source.Architecture), TPMSupport: u.TPMSupport})
	in.ImageLocation = new(u.S3Bucket + "/" + u.manifest())
	in.VirtualizationType = new(cmp.Or(u.VirtualizationType, string(u.Source.VirtualizationType)))
	in.BlockDeviceMappings = device.EC2(u.Image.Devices())
	return u.Images.Register(ctx, in, u.Labels, nil)
}

// manifest returns the name of the file that lists the bundle.
func (u *bundling) manifest() string { return u.prefix + ".manifest.xml" }

// volVariables are the template variables of bundle_vol_command.
type volVariables struct {
	account, architecture, cert, destination, key, prefix, private string
}

func (v volVariables) data() map[string]any {
	return map[string]any{
		"AccountId": v.account, "Architecture": v.architecture, "CertPath": v.cert, "Destination": v.destination,
		"KeyPath": v.key, "Prefix": v.prefix, "PrivatePath": v.private,
	}
}

// uploadVariables are the template variables of bundle_upload_command.
type uploadVariables struct {
	bucket, directory, manifest, region string
	credentials                         aws.Credentials
}

func (v uploadVariables) data() map[string]any {
	return map[string]any{
		"AccessKey": v.credentials.AccessKeyID, "BucketName": v.bucket, "BundleDirectory": v.directory, "ManifestPath": v.manifest,
		"Region": v.region, "SecretKey": v.credentials.SecretAccessKey, "Token": v.credentials.SessionToken,
	}
}

// bundle makes the machine create the bundle and upload it.
func (u *bundling) bundle(ctx context.Context, m communicator.Communicator) error {
	cert, key := path.Join(u.X509UploadPath, "cert.pem"), path.Join(u.X509UploadPath, "key.pem")
	err := step.Run(ctx, u.Scope, "upload certificate and key", func(ctx context.Context) error {
		if err := u.upload(ctx, m, cert, &u.X509CertPath); err != nil {
			return err
		}
		return u.upload(ctx, m, key, &u.X509KeyPath)
	})
	if err != nil {
		return err
	}
	err = step.Run(ctx, u.Scope, "create the bundle", func(ctx context.Context) error {
		return u.run(ctx, m, &u.BundleVolCommand, volVariables{
			account: u.account(), architecture: string(u.Source.Architecture), cert: cert, destination: u.BundleDestination,
			key: key, prefix: u.prefix, private: u.X509UploadPath,
		}.data())
	})
	if err != nil {
		return err
	}
	return step.Run(ctx, u.Scope, "upload the bundle", func(ctx context.Context) error {
		credentials, err := u.Session.Credentials(ctx)
		if err != nil {
			return err
		}
		u.Src.Secret(credentials.SecretAccessKey)
		u.Src.Secret(credentials.SessionToken)
		return u.run(ctx, m, &u.BundleUploadCommand, uploadVariables{
			bucket: u.S3Bucket, directory: u.BundleDestination, manifest: path.Join(u.BundleDestination, u.manifest()),
			region: u.Session.Region, credentials: credentials,
		}.data())
	})
}

// upload uploads a file of this machine, named by the option from, to the machine. Only the
// login user can read it there.
func (u *bundling) upload(ctx context.Context, m communicator.Communicator, to string, from *string) error {
	content, err := hostpath.Read(*from, hostpath.Limit)
	if err != nil {
		return u.Src.Errorf(from, "File cannot be read", "%s.", err)
	}
	return m.Put(ctx, path.Dir(to), communicator.File(path.Base(to), 0o600, content))
}

// run runs the command of an option on the machine and forwards its output.
func (u *bundling) run(ctx context.Context, m communicator.Communicator, option *string, data map[string]any) error {
	line, err := u.Render(option, *option, data)
	if err != nil {
		return err
	}
	out := script.NewLines(func(text string) { u.Scope.Output(ctx, step.Output, text) })
	var last string
	errOut := script.NewLines(func(text string) {
		u.Scope.Output(ctx, step.ErrOutput, text)
		if strings.TrimSpace(text) != "" {
			last = ": " + strings.TrimSpace(text)
		}
	})
	status, err := m.Run(ctx, communicator.Command{Line: line, Stdout: out, Stderr: errOut})
	out.Flush()
	errOut.Flush()
	if err != nil {
		return err
	}
	if status.Code != 0 {
		return fmt.Errorf("%s failed with status %d%s", u.Src.Name(option), status.Code, last)
	}
	return nil
}
