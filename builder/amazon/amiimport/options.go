package amiimport

import (
	"slices"
	"strings"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/names"
	"bake/config/schema"
	"bake/internal/s3uri"
)

// Options of the post-processor amazon-import.
type Options struct {
	access.Options

	// S3 bucket to upload the disk image to. It must exist, and be in the region of the
	// import.
	Bucket string `hcl:"s3_bucket_name"`

	// Key of the S3 object. Not set: `packer-import-{{timestamp}}.` followed by the format.
	Key string `hcl:"s3_key_name,optional,deferred"`

	// Encryption of the S3 object: `AES256` or `aws:kms`. Not set: the bucket's default.
	Encryption string `hcl:"s3_encryption,optional"`

	// KMS key for the S3 object. Used with `s3_encryption = "aws:kms"`.
	EncryptionKey string `hcl:"s3_encryption_key,optional"`

	// Format of the disk image: `ova`, `raw`, `vmdk`, `vhd` or `vhdx`. The first file of the
	// artifact with this extension is imported.
	Format string `hcl:"format,optional"`

	// Name of the image. It must not be in use in the region. Not set: a name chosen by
	// EC2 (import-ami-...).
	Name string `hcl:"ami_name,optional"`

	// Description of the image, up to 255 characters.
	Description string `hcl:"ami_description,optional"`

	// AWS accounts that may launch the image, as 12-digit account IDs. Not set: only the
	// account that owns it. An encrypted image can be shared only if its key is a
	// customer managed key.
	Users []string `hcl:"ami_users,optional"`

	// Groups that may launch the image. The only group is `all`, which makes the image
	// public. Encrypted images cannot be public.
	Groups []string `hcl:"ami_groups,optional"`

	// ARNs of organizations in AWS Organizations whose accounts may launch the image.
	OrgARNs []string `hcl:"ami_org_arns,optional"`

	// ARNs of organizational units in AWS Organizations whose accounts may launch the image.
	OUARNs []string `hcl:"ami_ou_arns,optional"`

	// Encrypt the image, with `ami_kms_key` or the account's default key for EBS.
	Encrypt bool `hcl:"ami_encrypt,optional"`

	// KMS key for the image: key ID, alias or ARN. Needs `ami_encrypt`. Not set: the
	// account's default key for EBS; if AWS manages that, the image cannot be shared.
	KMSKey string `hcl:"ami_kms_key,optional"`

	// Tags for the image and its snapshots.
	Tags map[string]string `hcl:"tags,optional"`

	// License of the operating system: `AWS` (included, charged per hour) or `BYOL` (bring
	// your own). Not set: EC2 decides.
	LicenseType string `hcl:"license_type,optional"`

	// IAM role that EC2 assumes to read the bucket and import the image. Not set:
	// `vmimport`. It must trust vmie.amazonaws.com.
	RoleName string `hcl:"role_name,optional"`

	// Architecture of the operating system on the disk: `x86_64`, `arm64` or `i386`.
	Architecture string `hcl:"architecture,optional"`

	// Boot mode of the image: `legacy-bios`, `uefi` or `uefi-preferred`. Not set: `uefi` for
	// arm64, and `legacy-bios` otherwise. The wrong mode makes an image that does not boot.
	BootMode string `hcl:"boot_mode,optional"`

	// Operating system on the disk: `linux` or `windows`. Required if it boots with UEFI.
	Platform string `hcl:"platform,optional"`

	// `v2.0` makes instances of the image require session tokens of the metadata service
	// (IMDSv2) by default.
	IMDSSupport string `hcl:"imds_support,optional"`

	// Keep the uploaded S3 object after the import. Its storage is charged.
	SkipClean bool `hcl:"skip_clean,optional"`
}

func defaults() Options {
	return Options{Options: access.Defaults(), Format: "ova", Architecture: "x86_64"}
}

// bootMode returns the boot mode of the image.
func (o *Options) bootMode() string {
	switch {
	case o.BootMode != "":
		return o.BootMode
	case o.Architecture == "arm64":
		return "uefi"
	}
	return "legacy-bios"
}

// key returns the template of the object's key.
func (o *Options) key() string {
	if o.Key != "" {
		return o.Key
	}
	return "packer-import-{{timestamp}}." + o.Format
}

// kmsKey returns the key that the image is encrypted with, if it is encrypted.
func (o *Options) kmsKey() string {
	if !o.Encrypt {
		return ""
	}
	return o.KMSKey
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	o.Options.Validate(c)
	one := func(ptr *string, allowed ...string) {
		if *ptr != "" && !slices.Contains(allowed, *ptr) {
			c.Errorf(ptr, "Invalid value", "%s must be one of %s, not %q.", c.Name(ptr), strings.Join(allowed, ", "), *ptr)
		}
	}
	one(&o.Format, "ova", "raw", "vmdk", "vhd", "vhdx")
	one(&o.Encryption, "AES256", "aws:kms")
	one(&o.Architecture, "x86_64", "arm64", "i386")
	one(&o.BootMode, "legacy-bios", "uefi", "uefi-preferred")
	one(&o.Platform, "linux", "windows")
	one(&o.LicenseType, "AWS", "BYOL")
	one(&o.IMDSSupport, "v2.0")
	if o.Bucket == "" {
		c.Errorf(&o.Bucket, "No bucket", "Set s3_bucket_name to the bucket to upload the disk image to.")
	} else if err := s3uri.CheckBucket(o.Bucket); err != nil {
		c.Errorf(&o.Bucket, "Not a bucket", "%s.", err)
	}
	if o.EncryptionKey != "" && o.Encryption != "aws:kms" && c.Known(&o.Encryption) {
		c.Warnf(&o.EncryptionKey, "Key without encryption", `s3_encryption_key has no effect without s3_encryption = "aws:kms".`)
	}
	if o.bootMode() == "uefi" && o.Platform == "" && c.Known(&o.Platform) {
		c.Errorf(&o.Platform, "No platform", `An image that boots with UEFI needs platform = "linux" or "windows".`)
	}
	if o.KMSKey != "" {
		if !o.Encrypt && c.Known(&o.Encrypt) {
			c.Warnf(&o.KMSKey, "Key without encryption", "ami_kms_key has no effect without ami_encrypt = true.")
		}
		names.KMSKey(c, &o.KMSKey, o.KMSKey, o.Region)
	}
	if o.Name != "" {
		names.Image(c, &o.Name)
	}
	if o.Encrypt && c.Known(&o.KMSKey) {
		o.cannotShare("ami_encrypt is set", o.KMSKey, c.Errorf)
	}
	names.Accounts(c, &o.Users)
	names.Groups(c, &o.Groups)
	names.ARNs(c, &o.OrgARNs, names.Organization)
	names.ARNs(c, &o.OUARNs, names.Unit)
	interpolate.CheckTags(c, interpolate.Of(&o.Tags, nil))
}

// cannotShare reports sharing that AWS refuses because the image is encrypted. why is the
// reason for the encryption. key is its key, empty if that is not known.
func (o *Options) cannotShare(why, key string, report func(ptr any, summary, format string, args ...any)) {
	if slices.Contains(o.Groups, "all") {
		report(&o.Groups, "Sharing an encrypted image with everyone",
			"%s, and AWS does not allow encrypted images to be public: share with accounts, organizations or organizational units instead.", why)
	}
	for _, list := range []*[]string{&o.Users, &o.OrgARNs, &o.OUARNs} {
		if len(names.Given(*list)) > 0 && access.ManagedKey(key) {
			report(list, "Sharing an image that others cannot decrypt",
				"%s, and the key is %s, which only its own account may use: set ami_encrypt, and ami_kms_key to a customer managed KMS key.", why, key)
		}
	}
}
