package instance

import (
	"strings"

	"bake/builder/amazon/internal/policy"
)

// Permissions implements [bake/builder/amazon.Permitted]. The machine uploads the
// bundle with the credentials of the build, and grants EC2 to read it.
func (b *instance) Permissions() []policy.Need {
	region := b.Access.KnownRegion(b.src)
	here := policy.In(region)
	bucket, _, _ := strings.Cut(b.S3Bucket, "/")
	objects := b.S3Bucket + "/*"
	if !b.src.Known(&b.S3Bucket) {
		bucket, objects = "*", "*/*"
	}
	needs := b.Access.Permissions(b.src)
	needs = append(needs, b.Launch.Permissions(b.src, here, b.Launch.devices())...)
	needs = append(needs, b.Image.Permissions(b.src, region, "RegisterImage")...)
	return append(needs,
		policy.Need{Actions: []string{"s3:PutObject", "s3:PutObjectAcl", "s3:GetObject"}, Resources: here.Bucket(objects)},
		policy.Need{Actions: []string{"s3:GetBucketLocation", "s3:ListBucket"}, Resources: here.Bucket(bucket)})
}
