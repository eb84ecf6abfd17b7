// Package instance is the builder amazon-instance: an instance without an EBS
// root makes a bundle of its own disk and uploads it to S3, and an image is
// registered from that.
package instance

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/launch"
	"bake/communicator"
	"bake/component"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/internal/script"
	"bake/step"
)

// BuilderID marks the artifacts of this builder.
const BuilderID = "mitchellh.amazon.instance"

// Factory makes the builder; cloud stands in for AWS.
func Factory(cloud access.Cloud) component.Factory[builder.Builder] {
	return component.Define("amazon-instance", Defaults, func(o *Options, src *schema.Source) builder.Builder {
		return &instance{Options: o, src: src, cloud: cloud}
	}).Exporting(amazonbuild.Exports())
}

type instance struct {
	*Options
	src   *schema.Source
	cloud access.Cloud
}

// Build implements [builder.Builder].
func (b *instance) Build(ctx context.Context, s *step.Scope, provision builder.Provision) (*builder.Artifact, error) {
	f, err := amazonbuild.Open(ctx, s, b.src, b.cloud, &b.Access.Options, &b.Launch.Options)
	if err != nil {
		return nil, err
	}
	f.Machines.InstanceStore = true
	f.Machines.Devices = b.Launch.devices()
	f.Machines.Keep = launch.Kept(b.src, f.Machines.Devices)
	images := f.Images(&b.Image.Options, &b.Region)
	if err := images.Check(ctx); err != nil {
		return nil, err
	}
	var none map[string]string
	base, err := f.Prepare(ctx, interpolate.Of(&none, nil))
	if err != nil {
		return nil, err
	}
	labels, err := base.Labels(&b.Image.Options)
	if err != nil {
		return nil, err
	}
	u := &bundling{instance: b, Flow: f, architecture: string(base.Image.Architecture)}
	u.context = gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	if u.prefix, err = u.render(&b.BundlePrefix, nil); err != nil {
		return nil, err
	}
	f.Finish = u.bundle
	_, data, err := f.Work(ctx, base, provision)
	if err != nil {
		return nil, err
	}
	in := images.Request(image.Firmware{Architecture: image.Architecture(base.Image.Architecture), TPMSupport: b.TPMSupport})
	in.ImageLocation = new(b.S3Bucket + "/" + u.manifest())
	in.VirtualizationType = new(cmp.Or(b.VirtualizationType, string(base.Image.VirtualizationType)))
	in.BlockDeviceMappings = device.EC2(b.Image.Devices())
	first, err := images.Register(ctx, in, labels, nil)
	if err != nil {
		return nil, err
	}
	made, err := images.Distribute(ctx, first, labels)
	if len(made) == 0 {
		return nil, err
	}
	return image.Artifact(BuilderID, made, data), err
}

// bundling is the way of one machine's disk to S3.
type bundling struct {
	*instance
	*amazonbuild.Flow
	context      gotemplate.Context
	architecture string
	prefix       string
}

// manifest is the name of the file that lists the bundle.
func (u *bundling) manifest() string { return u.prefix + ".manifest.xml" }

// volVariables are those of bundle_vol_command.
type volVariables struct {
	account, architecture, cert, destination, key, prefix, private string
}

func (v volVariables) data() map[string]any {
	return map[string]any{
		"AccountId": v.account, "Architecture": v.architecture, "CertPath": v.cert, "Destination": v.destination,
		"KeyPath": v.key, "Prefix": v.prefix, "PrivatePath": v.private,
	}
}

// uploadVariables are those of bundle_upload_command.
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

// bundle makes the bundle on the machine and has it upload it.
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
			account: u.account(), architecture: u.architecture, cert: cert, destination: u.BundleDestination,
			key: key, prefix: u.prefix, private: u.X509UploadPath,
		}.data())
	})
	if err != nil {
		return err
	}
	err = step.Run(ctx, u.Scope, "upload the bundle", func(ctx context.Context) error {
		credentials, err := u.Session.Credentials(ctx)
		if err != nil {
			return err
		}
		u.src.Secret(credentials.SecretAccessKey)
		u.src.Secret(credentials.SessionToken)
		return u.run(ctx, m, &u.BundleUploadCommand, uploadVariables{
			bucket: u.S3Bucket, directory: u.BundleDestination, manifest: path.Join(u.BundleDestination, u.manifest()),
			region: u.Session.Region, credentials: credentials,
		}.data())
	})
	return err
}

// upload writes a file of this machine, which the option names, so that only the
// login user can read it.
func (u *bundling) upload(ctx context.Context, m communicator.Communicator, to string, from *string) error {
	content, err := os.ReadFile(*from)
	if err != nil {
		return u.src.Errorf(from, "File cannot be read", "%s.", err)
	}
	return m.Put(ctx, path.Dir(to), communicator.File(path.Base(to), 0o600, content))
}

// run runs the command of an option on the machine and passes its output on.
func (u *bundling) run(ctx context.Context, m communicator.Communicator, option *string, data map[string]any) error {
	line, err := u.render(option, data)
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
		return fmt.Errorf("%s failed with status %d%s", u.src.Name(option), status.Code, last)
	}
	return nil
}

func (u *bundling) render(option *string, data map[string]any) (string, error) {
	text, err := u.context.Render(*option, data)
	if err != nil {
		return "", u.src.Errorf(option, "Invalid {{ }} template", "%s.", err)
	}
	return text, nil
}
