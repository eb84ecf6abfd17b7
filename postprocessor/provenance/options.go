package provenance

import (
	"net/url"
	"strings"

	"bake/config/schema"
	"bake/golden/contents"
)

// Options are the arguments of a provenance post-processor.
type Options struct {
	// Write attestations. `false` passes the artifact on without any.
	Provenance bool `hcl:"provenance,optional"`

	// URI of the build type, which defines the meaning of the build's parameters.
	BuildType string `hcl:"build_type,optional"`

	// Directory to write to; it is created if needed. Not set: that of the artifact's first
	// file, or the current directory if there are no files.
	OutputDir string `hcl:"output_dir,optional"`

	// Path of the template, recorded as a parameter of the build. If the file exists, its
	// SHA-256 is recorded too.
	Template string `hcl:"template,optional"`

	// Builds that the artifact comes from, recorded as a parameter. Not set: the build that
	// is running.
	OnlyBuilds []string `hcl:"only_builds,optional"`

	// Variables to record as parameters. Values of sensitive variables, and of those listed in
	// `packer_sensitive_variables`, are recorded as `<sensitive>`.
	UserVariables map[string]string `hcl:"user_variables,optional"`

	// URI of the source repository. Not set: the one that the CI system reports, or that of
	// the Git repository of the current directory. User names and passwords are removed from
	// it.
	SourceURI string `hcl:"source_uri,optional"`

	// Attest an SBOM as well.
	SBOM bool `hcl:"sbom,optional"`

	// Format of the SBOM: `cyclonedx` or `spdx`.
	SBOMFormat string `hcl:"sbom_format,optional"`

	// Source of the SBOM: the root directory of a system, or an existing SBOM, such as one
	// from the provisioner `hcp-sbom`. Not set: the directory that contains all the
	// artifact's files. Required for an artifact without files.
	SBOMScanPath string `hcl:"sbom_scan_path,optional"`

	// `squashed` or `all-layers`. No effect, because a directory has no layers.
	SBOMScope string `hcl:"sbom_scope,optional"`

	// Path patterns. Packages found only at matching paths are excluded from the SBOM.
	SBOMExclude []string `hcl:"sbom_exclude,optional"`

	// How attestations are signed: `none`, `key` or `kms`. `keyless` is an error, because
	// Sigstore's Fulcio and Rekor are not supported.
	SigningMode string `hcl:"signing_mode,optional"`

	// With `key`, path of a private key in PEM format: Ed25519, ECDSA or RSA. The
	// passphrase of an encrypted key is read from the environment variable
	// `BAKE_SIGNING_PASSPHRASE`. With `kms`, an AWS KMS key: `awskms:///` followed by its
	// ID, ARN or alias.
	Signer string `hcl:"signer,optional"`

	// Another name for `signer`.
	Key string `hcl:"key,optional"`

	// Path of the public key in PEM format to check the signatures with. Not set: that of
	// the signer.
	Verifier string `hcl:"verifier,optional"`

	// For `keyless`, which is not supported.
	FulcioURL string `hcl:"fulcio_url,optional"`

	// For `keyless`, which is not supported.
	RekorURL string `hcl:"rekor_url,optional"`

	// For `keyless`, which is not supported.
	UploadTlog bool `hcl:"upload_tlog,optional"`

	// For `keyless`, which is not supported.
	TrustedRootPath string `hcl:"trusted_root_path,optional"`

	// For `keyless`, which is not supported.
	KeylessIdentity string `hcl:"keyless_identity,optional"`

	// For `keyless`, which is not supported.
	KeylessOIDCIssuer string `hcl:"keyless_oidc_issuer,optional"`
}

func defaults() Options {
	return Options{
		Provenance: true, BuildType: "https://packer.io/buildtypes/hcl2/v1", SBOMFormat: string(contents.CycloneDX), SBOMScope: "squashed",
		SigningMode: "none",
	}
}

const insteadOfKeyless = `Fulcio and Rekor of Sigstore are not supported. Use signing_mode = "key" with a PEM key, or "kms" with a key of AWS KMS.`

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	for _, f := range []*string{&o.BuildType, &o.SourceURI} {
		if u, err := url.Parse(*f); *f != "" && (err != nil || u.Scheme == "") || f == &o.BuildType && *f == "" {
			c.Errorf(f, "Not a URI", "%s must be a URI.", c.Name(f))
		}
	}
	if o.SBOMFormat != string(contents.CycloneDX) && o.SBOMFormat != string(contents.SPDX) {
		c.Errorf(&o.SBOMFormat, "Unknown format", `sbom_format must be "cyclonedx" or "spdx".`)
	}
	if o.SBOMScope != "squashed" && o.SBOMScope != "all-layers" {
		c.Errorf(&o.SBOMScope, "Unknown scope", `sbom_scope must be "squashed" or "all-layers".`)
	}
	if wrong := contents.CheckPatterns(o.SBOMExclude); wrong != "" {
		c.Errorf(&o.SBOMExclude, "Unusable pattern", "%s", wrong)
	}
	o.validateSigner(c)
	for f, set := range map[any]bool{
		&o.FulcioURL: o.FulcioURL != "", &o.RekorURL: o.RekorURL != "", &o.UploadTlog: o.UploadTlog, &o.TrustedRootPath: o.TrustedRootPath != "",
		&o.KeylessIdentity: o.KeylessIdentity != "", &o.KeylessOIDCIssuer: o.KeylessOIDCIssuer != "",
	} {
		if set && o.SigningMode != "keyless" {
			c.Errorf(f, "Option of keyless signing", "%s needs keyless signing, which is not supported. %s", c.Name(f), insteadOfKeyless)
		}
	}
	if !o.SBOM {
		for f, set := range map[any]bool{&o.SBOMScanPath: o.SBOMScanPath != "", &o.SBOMExclude: len(o.SBOMExclude) > 0} {
			if set && c.Known(&o.SBOM) {
				c.Warnf(f, "Option without effect", "%s has no effect without sbom = true.", c.Name(f))
			}
		}
	}
}

func (o *Options) validateSigner(c *schema.Checker) {
	if o.Signer != "" && o.Key != "" && o.Signer != o.Key {
		c.Errorf(&o.Key, "Two keys", "key is another name for signer: set one of them.")
	}
	field, key := o.signer()
	switch o.SigningMode {
	case "none":
		for _, f := range []*string{&o.Signer, &o.Key, &o.Verifier} {
			if *f != "" && c.Known(&o.SigningMode) {
				c.Errorf(f, "Key without signing", `%s needs signing_mode = "key" or "kms".`, c.Name(f))
			}
		}
	case "key", "kms":
		if key == "" {
			if c.Known(&o.Signer) && c.Known(&o.Key) {
				c.Errorf(&o.SigningMode, "No key", "signing_mode = %q needs signer.", o.SigningMode)
			}
			return
		}
		scheme, _, isURI := strings.Cut(key, "://")
		switch {
		case o.SigningMode == "key" && isURI:
			c.Errorf(field, "Not a file", `%s is not the path of a PEM file; use signing_mode = "kms" for an AWS KMS key.`, key)
		case o.SigningMode == "kms" && (!isURI || scheme != "awskms"):
			c.Errorf(field, "Unsupported key", "%s is not an AWS KMS key, which begins with awskms://; keys of other services are not supported.", key)
		}
	case "keyless":
		c.Errorf(&o.SigningMode, "Keyless signing is not supported", "%s", insteadOfKeyless)
	default:
		c.Errorf(&o.SigningMode, "Unknown signing mode", `signing_mode must be "none", "key" or "kms".`)
	}
}

// signer returns the key to sign with, and the option that contains it.
func (o *Options) signer() (field *string, key string) {
	if o.Signer == "" {
		return &o.Key, o.Key
	}
	return &o.Signer, o.Signer
}
