package instance

import (
	"strings"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/launch"
	"bake/builder/amazon/internal/names"
	"bake/communicator/ssh"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/internal/hostpath"
)

// Options of the builder amazon-instance.
type Options struct {
	Access
	Launch
	Image
	Bundle
}

// The groups of options, each accessible by its name.
type (
	// Access holds the options for the account and region.
	Access struct{ access.Options }
	// Launch holds the options for the machine and the connection to it.
	Launch struct {
		launch.Options

		// Volumes of the build instance, besides those of the source image: EBS volumes, or
		// instance store volumes with `virtual_name`. They exist only during the build; the volumes
		// of the image are `ami_block_device_mappings`. Repeatable.
		LaunchBlockDeviceMappings []device.Mapping `hcl:"launch_block_device_mappings,block"`
	}
	// Image holds the options for the finished image.
	Image struct {
		image.Options

		// Version of the Trusted Platform Module for instances of the image: `v2.0`. Not set: none.
		// EC2 is likely to refuse it: a TPM needs UEFI, which no instance type that boots from an
		// instance store has.
		TPMSupport image.TPM `hcl:"tpm_support,optional"`
	}
)

// Bundle defines how the bundle is made on the machine, and where it is stored.
type Bundle struct {
	// 12-digit ID of the AWS account that owns the bundle. Dashes are ignored.
	AccountID string `hcl:"account_id"`

	// S3 bucket to upload the bundle to, optionally followed by `/` and a folder. It must be in
	// the region of the build. The image needs the bundle for as long as it exists; deleting the
	// image does not delete it.
	S3Bucket string `hcl:"s3_bucket"`

	// X.509 certificate of the account: a PEM file on this computer. The bundle is signed with
	// it; register it with IAM first.
	X509CertPath string `hcl:"x509_cert_path"`

	// Private key of the certificate: a PEM file on this computer. It is uploaded to the
	// machine, to `x509_upload_path`.
	X509KeyPath string `hcl:"x509_key_path"`

	// Directory on the machine to upload the certificate and key to, as cert.pem and
	// key.pem. The default is left out of the bundle; with another one the private key can
	// end up in the image.
	X509UploadPath string `hcl:"x509_upload_path,optional"`

	// Directory on the machine to write the bundle to. It needs enough space for the whole
	// image.
	BundleDestination string `hcl:"bundle_destination,optional"`

	// Prefix of the names of the bundle's files. It should differ from build to build: a bundle
	// with the same prefix in the same folder is overwritten, and the image made from it breaks.
	BundlePrefix string `hcl:"bundle_prefix,optional,deferred"`

	// Command that creates the bundle on the machine. It can use `{{.AccountId}}`,
	// `{{.Architecture}}`, `{{.CertPath}}`, `{{.Destination}}`, `{{.KeyPath}}`,
	// `{{.Prefix}}` and `{{.PrivatePath}}`, which is `x509_upload_path`.
	BundleVolCommand string `hcl:"bundle_vol_command,optional,deferred"`

	// Command that uploads the bundle from the machine. It can use `{{.AccessKey}}`,
	// `{{.BucketName}}`, `{{.BundleDirectory}}`, `{{.ManifestPath}}`, `{{.Region}}`,
	// `{{.SecretKey}}` and `{{.Token}}`, which is empty for long-term credentials.
	BundleUploadCommand string `hcl:"bundle_upload_command,optional,deferred"`
}

// defaults returns the options of a template that sets none.
func defaults() Options {
	return Options{
		Access: Access{access.Defaults()},
		Launch: Launch{Options: launch.Defaults()},
		Bundle: Bundle{
			X509UploadPath:    "/tmp",
			BundleDestination: "/tmp",
			BundlePrefix:      "image-{{timestamp}}",
			BundleVolCommand: "sudo -i -n ec2-bundle-vol -k {{.KeyPath}} -u {{.AccountId}} -c {{.CertPath}} -r {{.Architecture}}" +
				" -e {{.PrivatePath}}/* -d {{.Destination}} -p {{.Prefix}} --batch --no-filter",
			BundleUploadCommand: "sudo -i -n ec2-upload-bundle -b {{.BucketName}} -m {{.ManifestPath}} -a {{.AccessKey}} -s {{.SecretKey}}" +
				" -d {{.BundleDirectory}} --batch --region {{.Region}} {{if .Token}}-t {{.Token}} {{end}}--retry",
		},
	}
}

// devices returns the mappings in the form that the launcher uses.
func (l *Launch) devices() (all []*device.Mapping) {
	for i := range l.LaunchBlockDeviceMappings {
		all = append(all, &l.LaunchBlockDeviceMappings[i])
	}
	return all
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	o.Access.Validate(c)
	o.Launch.Options.Validate(c)
	o.Launch.ValidateIn(c, o.Region)
	o.Image.ValidateTags(c, o.DeferredRunTags())
	o.Image.Options.Validate(c)
	device.Validate(c, o.Launch.devices())
	o.Bundle.validate(c)
	if o.Communicator == ssh.None {
		c.Errorf(&o.Communicator, "No communicator", "Commands on the machine create the bundle, and they need a communicator.")
	}
	if c.Set(&o.ShutdownBehavior) {
		c.Warnf(&o.ShutdownBehavior, "Argument without effect", "An instance without an EBS root can only be terminated.")
	}
	if o.Spot() {
		const why = "amazon-instance does not support it together with spot_price."
		if o.SRIOVSupport {
			c.Errorf(&o.SRIOVSupport, "Not supported on a spot instance", why)
		}
		if o.ENASupport != nil {
			c.Errorf(&o.ENASupport, "Not supported on a spot instance", why)
		}
	}
}

// account returns the account's number without dashes.
func (b *Bundle) account() string { return strings.ReplaceAll(b.AccountID, "-", "") }

func (b *Bundle) validate(c *schema.Checker) {
	if c.Known(&b.AccountID) && !names.IsAccount(b.account()) {
		c.Errorf(&b.AccountID, "Invalid account ID", "%q is not an AWS account ID, which has 12 digits.", b.AccountID)
	}
	for _, file := range []*string{&b.X509CertPath, &b.X509KeyPath} {
		if !c.Known(file) {
			continue
		}
		if *file == "" {
			c.Errorf(file, "Missing value", "%s cannot be empty.", c.Name(file))
		} else if err := hostpath.Check(*file); err != nil {
			c.Errorf(file, "File cannot be read", "%s.", err)
		}
	}
	if b.S3Bucket == "" && c.Known(&b.S3Bucket) {
		c.Errorf(&b.S3Bucket, "Missing value", "s3_bucket cannot be empty.")
	}
	b.validateVariables(c, &b.BundlePrefix, nil)
	b.validateVariables(c, &b.BundleVolCommand, volVariables{}.data())
	b.validateVariables(c, &b.BundleUploadCommand, uploadVariables{}.data())
}

// validateVariables reports a text with unknown variables. Its syntax was checked when it
// was decoded.
func (b *Bundle) validateVariables(c *schema.Checker, text *string, data map[string]any) {
	if !c.Known(text) || (gotemplate.Context{}).Check(*text) != nil {
		return
	}
	out, err := gotemplate.Context{}.Render(*text, data)
	switch {
	case err != nil:
		c.Errorf(text, "Invalid {{ }} template", "%s.", err)
	case strings.Contains(out, noValue):
		c.Errorf(text, "Unknown variable", "%s uses an unknown variable; see its documentation for those it has.", c.Name(text))
	}
}

// noValue is the rendering of a variable that does not exist.
const noValue = "<no value>"
