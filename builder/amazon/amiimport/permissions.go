package amiimport

import (
	"strings"

	"bake/builder/amazon/internal/policy"
)

// Permissions implements [bake/builder/amazon.Permitted]. The import task and a copy carry
// the tag of the run; EC2 does not set it on an image that an import makes.
func (p *importer) Permissions() []policy.Need {
	here := policy.In(p.KnownRegion(p.src))
	bucket, object := p.Bucket, p.Bucket+"/"+p.key()
	if !p.src.Known(&p.Bucket) {
		bucket, object = "*", "*/*"
	} else if !p.src.Known(&p.Key) || strings.Contains(p.key(), "{{") {
		before, _, _ := strings.Cut(p.key(), "{{")
		if !p.src.Known(&p.Key) {
			before = ""
		}
		object = p.Bucket + "/" + before + "*"
	}
	role := p.RoleName
	switch {
	case !p.src.Known(&p.RoleName):
		role = "*"
	case role == "":
		role = "vmimport"
	}
	needs := append(p.Options.Options.Permissions(p.src),
		policy.Need{Actions: []string{"s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload"}, Resources: here.Bucket(object)},
		policy.Need{Actions: []string{"s3:GetBucketLocation", "s3:ListBucketMultipartUploads"}, Resources: here.Bucket(bucket)},
		here.Pass("vmie", "role/"+role), here.Use("ImportImage", "image", "snapshot"))
	needs = append(needs, here.Make("ImportImage", "import-image-task")...)
	needs = append(needs,
		here.Own("CancelImportTask", "import-image-task"), here.Release("import-image-task"),
		here.Look("DescribeImportImageTasks", "DescribeImages", "DescribeSnapshots"),
		here.Use("DeregisterImage", "image"), here.Use("DeleteSnapshot", "snapshot"))
	if policy.MayBe(p.src, &p.SkipClean, !p.SkipClean) {
		needs = append(needs, policy.Need{Actions: []string{"s3:DeleteObject"}, Resources: here.Bucket(object)})
	}
	if policy.MayBe(p.src, &p.Encryption, p.Encryption == "aws:kms") {
		key := p.EncryptionKey
		if key == "" || !p.src.Known(&p.EncryptionKey) {
			key = "*"
		}
		needs = append(needs, here.Crypt("s3", key, "Decrypt", "GenerateDataKey"))
	}
	return append(needs, p.imagePermissions(here)...)
}

// imagePermissions returns the needs for naming, labelling and sharing the image.
func (p *importer) imagePermissions(here policy.Place) (needs []policy.Need) {
	key := p.KMSKey
	if !p.src.Known(&p.KMSKey) {
		key = "*"
	}
	needs = here.Keys(key)
	if policy.MayBe(p.src, &p.Name, p.Name != "") {
		needs = append(needs, here.Use("CopyImage", "image", "snapshot"), here.TagNew("CopyImage", "image", "snapshot"), here.Release("image", "snapshot"))
	}
	if policy.MayBe(p.src, &p.Tags, len(p.Tags) > 0) && policy.MayBe(p.src, &p.Name, p.Name == "") {
		needs = append(needs, here.Use("CreateTags", "image", "snapshot"))
	}
	shared := false
	for _, list := range []*[]string{&p.Users, &p.Groups, &p.OrgARNs, &p.OUARNs} {
		shared = shared || policy.MayBe(p.src, list, len(*list) > 0)
	}
	plain := policy.MayBe(p.src, &p.Encrypt, !p.Encrypt)
	if shared && plain {
		needs = append(needs, here.Look("GetEbsEncryptionByDefault"))
	}
	if shared && (plain || policy.MayBe(p.src, &p.KMSKey, p.KMSKey == "")) {
		needs = append(needs, here.Look("GetEbsDefaultKmsKeyId"))
	}
	if shared || policy.MayBe(p.src, &p.Description, p.Description != "") || policy.MayBe(p.src, &p.IMDSSupport, p.IMDSSupport != "") {
		needs = append(needs, here.Use("ModifyImageAttribute", "image"))
	}
	return needs
}
