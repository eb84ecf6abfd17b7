package amiimport

import (
	_ "embed"
	"slices"
	"strings"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/late"
	"bake/builder/amazon/internal/names"
	"bake/config/schema"
)

//go:embed options.go
var source string

// Options of the post-processor amazon-import.
type Options struct {
	access.Options

	// Bucket that the disk image is uploaded to, in the region of the import.
	Bucket string `hcl:"s3_bucket_name"`

	// Key of the uploaded object. Not set: `packer-import-{{timestamp}}.` and the format.
	Key string `hcl:"s3_key_name,optional,late"`

	// Encryption of the object: `AES256` or `aws:kms`.
	Encryption string `hcl:"s3_encryption,optional"`

	// KMS key that the object is encrypted with, for `aws:kms`.
	EncryptionKey string `hcl:"s3_encryption_key,optional"`

	// Format of the disk image: `ova`, `raw`, `vmdk`, `vhd` or `vhdx`. The first file
	// of the artifact that has it as its extension is imported.
	Format string `hcl:"format,optional"`

	// Name of the image. Not set: the name that the import gives it.
	Name string `hcl:"ami_name,optional"`

	// Description of the image.
	Description string `hcl:"ami_description,optional"`

	// Accounts that may launch the image.
	Users []string `hcl:"ami_users,optional"`

	// Groups that may launch the image. The only one is `all`: everybody.
	Groups []string `hcl:"ami_groups,optional"`

	// ARNs of organizations that may launch the image.
	OrgARNs []string `hcl:"ami_org_arns,optional"`

	// ARNs of organizational units that may launch the image.
	OUARNs []string `hcl:"ami_ou_arns,optional"`

	// Encrypt the image.
	Encrypt bool `hcl:"ami_encrypt,optional"`

	// KMS key to encrypt the image with. Not set: the account's default key.
	KMSKey string `hcl:"ami_kms_key,optional"`

	// Tags for the image and its snapshots.
	Tags map[string]string `hcl:"tags,optional"`

	// License of the system on the disk: `AWS` or `BYOL`.
	LicenseType string `hcl:"license_type,optional"`

	// Role that the import works as. Not set: `vmimport`.
	RoleName string `hcl:"role_name,optional"`

	// Architecture of the system on the disk: `x86_64`, `arm64` or `i386`.
	Architecture string `hcl:"architecture,optional"`

	// How the image boots: `legacy-bios`, `uefi` or `uefi-preferred`. Not set: `uefi`
	// for arm64, and else `legacy-bios`.
	BootMode string `hcl:"boot_mode,optional"`

	// System on the disk: `linux` or `windows`. It is needed where it boots with UEFI.
	Platform string `hcl:"platform,optional"`

	// `v2.0` makes the metadata service ask for tokens on instances of the image.
	IMDSSupport string `hcl:"imds_support,optional"`

	// Leave the uploaded object in the bucket.
	SkipClean bool `hcl:"skip_clean,optional"`
}

func defaults() Options {
	return Options{Options: access.Defaults(), Format: "ova", Architecture: "x86_64"}
}

// bootMode is how the image boots.
func (o *Options) bootMode() string {
	switch {
	case o.BootMode != "":
		return o.BootMode
	case o.Architecture == "arm64":
		return "uefi"
	}
	return "legacy-bios"
}

// key is the template of the object's key.
func (o *Options) key() string {
	if o.Key != "" {
		return o.Key
	}
	return "packer-import-{{timestamp}}." + o.Format
}

// kmsKey is the key that the image is encrypted with, if it is encrypted.
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
			c.Errorf(ptr, "Invalid value", "%s is one of %s, not %q.", c.Name(ptr), strings.Join(allowed, ", "), *ptr)
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
		c.Errorf(&o.Bucket, "No bucket", "s3_bucket_name is the bucket that the disk image is uploaded to.")
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
	names.Accounts(c, &o.Users)
	names.Groups(c, &o.Groups)
	names.ARNs(c, &o.OrgARNs, names.Organization)
	names.ARNs(c, &o.OUARNs, names.Unit)
	late.CheckTags(c, late.Of(&o.Tags, nil))
}
