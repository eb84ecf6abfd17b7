package instance

import (
	"strings"

	"bake/builder/amazon/internal/policy"
	"bake/config/schema"
)

// permissions returns the needs for making and reading the bundle: the machine uploads it
// with the credentials of the build, and grants EC2 permission to read it.
func (o *Options) permissions(src *schema.Source, region string, here policy.Place) []policy.Need {
	bucket, _, _ := strings.Cut(o.S3Bucket, "/")
	objects := o.S3Bucket + "/*"
	if !src.Known(&o.S3Bucket) {
		bucket, objects = "*", "*/*"
	}
	return append(o.Image.Permissions(src, region, "RegisterImage"),
		policy.Need{Actions: []string{"s3:PutObject", "s3:PutObjectAcl", "s3:GetObject"}, Resources: here.Bucket(objects)},
		policy.Need{Actions: []string{"s3:GetBucketLocation", "s3:ListBucket"}, Resources: here.Bucket(bucket)})
}
